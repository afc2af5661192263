"""The layouts: one folder per kind of checkpoint."""
