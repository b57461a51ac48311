"""The language model, the training loop and their parts."""
