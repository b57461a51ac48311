"""Where adapters come from: each module but `interface` is a source, named by the module."""
