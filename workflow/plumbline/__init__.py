"""Plumbline: machine-learning studies as file targets."""

import gc

# Importing torch makes a million objects that live on; looking for garbage among them takes a third of a second
# in each of the hundreds of short processes that a workflow is made of.
gc.set_threshold(100_000, 20, 20)
