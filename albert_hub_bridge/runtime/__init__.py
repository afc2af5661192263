"""Run a checkpoint with this package's model."""
