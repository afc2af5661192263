"""How the dialects correspond: tables and pure functions. No files, no torch."""
