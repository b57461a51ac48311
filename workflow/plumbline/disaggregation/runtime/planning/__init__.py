"""Where each part of a program runs, and how long that takes."""
