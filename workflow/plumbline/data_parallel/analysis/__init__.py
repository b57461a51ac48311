"""What the records say: tables, speed-ups, the network model, findings."""
