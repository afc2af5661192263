"""The recipes of the published checkpoints. They run from a checkout and are never installed."""
