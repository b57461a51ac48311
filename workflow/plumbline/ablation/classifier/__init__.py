"""The classifier of a trial: a multilayer perceptron, its runs trained at once or one after another."""
