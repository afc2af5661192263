"""Engines: one for each library that can compute a side of a verification."""
