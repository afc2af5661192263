"""The engines: one module per library that computes a checkpoint."""
