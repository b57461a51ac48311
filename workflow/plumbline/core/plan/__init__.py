"""The plan: targets, what decides each, what made them, and where they stand."""
