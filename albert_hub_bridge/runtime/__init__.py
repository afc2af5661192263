"""Run any checkpoint with this package's model, without converting it first."""
