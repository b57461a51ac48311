"""A decoder of our own for Llama-shaped models: static cache, fused projections, nothing between two tokens."""
