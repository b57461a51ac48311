"""One module per representation. Module, function and representation have the same name."""
