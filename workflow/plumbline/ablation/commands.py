"""What the study adds to the command line: `plumbline show ablation`."""

from collections import defaultdict
from statistics import fmean
from typing import Any


def row(record: dict[str, Any]) -> dict[str, Any]:
    """What `plumbline show` says of a trial first: accuracy is the mean over the test sets of the runs."""
    accuracies = defaultdict(list)
    for run in record["runs"]:
        if run["outcome"] == "ok":
            accuracies[run["classifier"]].append(run["test"]["accuracy"])
    head = {name: record.get(name) for name in ("view", "layers", "representation", "feature_width")}
    return head | {f"{name}_accuracy": fmean(values) for name, values in accuracies.items()}
