"""Mathematics of stacks of matrices, and of products known by their factors, in numpy and scipy."""
