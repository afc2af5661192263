"""Corpora: read texts from files, and write their vectors. Needs pyarrow, of the extra `embed`."""
