"""Models: where they come from, how they are compressed, and how they are loaded."""
