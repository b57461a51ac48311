"""Engines, a file each."""
