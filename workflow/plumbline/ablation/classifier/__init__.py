"""The classifier: a multilayer perceptron, trained several times, all runs at once or one after another."""
