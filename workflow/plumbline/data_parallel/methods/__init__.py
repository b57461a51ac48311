"""Ways of training on several ranks: each module except `interface` is a method with its name."""
