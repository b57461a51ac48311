"""Where text comes from: each module but `interface` is a source, named by the module."""
