"""From records to tables and sentences."""
