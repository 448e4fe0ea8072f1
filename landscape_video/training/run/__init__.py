"""A training run: loop, checkpoints, validation, publishing."""
