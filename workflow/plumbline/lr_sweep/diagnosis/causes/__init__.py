"""One module per cause of a slow run; its name, the function's and the cause's are the same."""
