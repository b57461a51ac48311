"""The model's own `generate` in transformers, with its dynamic cache: what the other engines must agree with."""
