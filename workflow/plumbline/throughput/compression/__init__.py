"""Low-rank compression of a model's linear layers."""
