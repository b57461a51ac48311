"""Programs as graphs of aten operations: captured, described, and run."""
