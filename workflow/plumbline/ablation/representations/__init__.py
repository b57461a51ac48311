"""One module per representation; its name, the representation's and the function's are the same."""
