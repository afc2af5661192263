"""A KerasHub preset and a transformers repository in one folder."""
