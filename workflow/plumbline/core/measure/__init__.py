"""What is read off the machine: its description, clocks, and where the time of a run goes."""
