"""Search for a ranker's settings on validation, with KerasTuner."""
