"""What the trainings of several studies share."""
