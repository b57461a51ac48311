"""Where text comes from: each module except `interface` is a source with the module's name."""
