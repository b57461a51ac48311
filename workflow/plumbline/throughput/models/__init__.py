"""Models: where they come from, how they are described, and how they are loaded."""
