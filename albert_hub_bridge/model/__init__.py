"""What runs: the configuration, the model and the tokenizer. Knows nothing of the rest of this package."""
