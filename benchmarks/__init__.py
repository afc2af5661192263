"""Each module prints a table against its peers, in one run: `python -m benchmarks.convert`."""
