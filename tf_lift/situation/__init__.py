"""What people who had the user's last items went on to: transition counts and their lookup."""
