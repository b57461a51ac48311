"""Records to tables and findings."""
