"""The figures: comparisons of representations, cost of accuracy, single trials."""
