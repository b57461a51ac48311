"""Tables, figures and sentences."""
