"""Where adapters come from: every module but `interface` is a source of the same name."""
