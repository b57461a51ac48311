"""Intervals, tests and effect sizes."""
