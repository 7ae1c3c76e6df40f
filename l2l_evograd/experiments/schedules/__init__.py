"""The schedules experiment: learning-rate schedules of a training run, by search."""
