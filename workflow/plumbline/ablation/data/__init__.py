"""Adapters and features on disk."""
