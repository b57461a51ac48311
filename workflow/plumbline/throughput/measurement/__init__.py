"""One trial: setup, timing, memory and limits."""
