"""Training on one rank: data, model, loop, translations."""
