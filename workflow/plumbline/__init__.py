"""Plumbline: machine-learning studies as file targets."""
