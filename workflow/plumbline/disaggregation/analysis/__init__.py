"""What the records of all blocks say, as tables and sentences."""
