"""Figures of the study, each a function from its tables to a figure."""
