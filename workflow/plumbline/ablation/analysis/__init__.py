"""From trial records to tables and findings."""
