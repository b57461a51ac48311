"""Ways to generate, a file each."""
