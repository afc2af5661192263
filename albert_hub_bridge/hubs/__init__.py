"""Pull from and push to model hubs."""
