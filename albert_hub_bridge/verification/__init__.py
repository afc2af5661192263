"""Verify that a source and its conversion are the same model."""
