"""What corresponds to what between the dialects: pure functions and tables. No files, no torch."""
