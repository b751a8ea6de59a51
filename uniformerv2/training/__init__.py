"""Training: the loop, optimiser, schedule, checkpoints, ranks and metrics."""
