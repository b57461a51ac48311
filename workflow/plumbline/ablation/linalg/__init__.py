"""Numerics for stacks of matrices, and for products given by their factors, in numpy and scipy."""
