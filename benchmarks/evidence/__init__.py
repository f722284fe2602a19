"""What the comparisons of rankers share: their runs, numbers, intervals, tables and plots."""
