"""One module per cause of slow training; the module, its function and the cause share one name."""
