"""Searches and halving: which points a sweep runs beyond those that the config lists."""
