"""A function as a trial: it reports curves, and resumes from its own checkpoint.

sweep:
  resumable:
    run: examples.resumable.training:run
    grid: {rate: [0.1, 0.4, 0.9, 1.1]}
    metric: {name: loss, goal: min}
"""

import json
import random

STEPS = 20


def run(settings, *, seed, folder, report):
    """Gradient descent on x² from a random start; rates above 1 diverge. Returns the final loss."""
    checkpoint = folder / "checkpoint.json"
    if checkpoint.exists():
        step, x = json.loads(checkpoint.read_text())
    else:
        step, x = 0, random.Random(seed).uniform(1, 2)
    while step < STEPS:
        x -= settings["rate"] * 2 * x
        step += 1
        report(step, loss=x * x)
        partial = checkpoint.with_suffix(".partial")
        partial.write_text(json.dumps([step, x]))
        partial.rename(checkpoint)
    return {"loss": x * x}
