"""The recipes that produced what is published. Run them from a checkout; they are never installed."""
