"""Compare a source with its conversion."""
