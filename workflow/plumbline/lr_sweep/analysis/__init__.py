"""From records to tables, an analysis and findings."""
