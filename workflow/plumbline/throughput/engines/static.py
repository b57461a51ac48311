"""transformers' `generate` with a static cache, compiled where that is chosen."""
