"""What happens in one block: processes on their cores and links, and the variants that take turns."""
