"""transformers' continuous batching, with its paged cache."""
