"""What runs: the configuration, the model and the tokenizer. Needs torch and transformers, and nothing of ours."""
