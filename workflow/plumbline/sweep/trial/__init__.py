"""One trial: its command, its folder, what it leaves there."""
