"""Check of a model and its data before training."""
