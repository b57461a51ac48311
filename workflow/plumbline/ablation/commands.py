"""What the study adds to the command line: `plumbline show ablation`, `plumbline compare A B`."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from plumbline.core.present.answer import Answer, Row


def rows(record: dict[str, Any]) -> list[Row]:
    """What `plumbline show` says of a trial: accuracy is the mean over the test sets of the runs."""
    accuracies = defaultdict(list)
    for run in record["runs"]:
        if run["outcome"] == "ok":
            accuracies[run["classifier"]].append(run["test"]["accuracy"])
    keys = {name: record.get(name) for name in ("view", "layers", "representation")}
    found = {f"{name}_accuracy": fmean(values) for name, values in accuracies.items()}
    return [Row(keys, found)]


def compare(first: Path, second: Path, threshold: float | None) -> Answer:
    """What differs beyond noise between two results folders: the accuracy of each classifier, paired by run."""
    from plumbline.ablation.analysis.records import TrialRecord, test_over_train
    from plumbline.core.present.comparing import compared
    from plumbline.core.statistics.before_after import Measured

    def measured(record: TrialRecord) -> Iterator[Measured]:
        for classifier in dict.fromkeys(run.classifier for run in record.good_runs):
            runs = record.good_runs_of(classifier)
            shared, unit = test_over_train(runs), f"{record.trial} {classifier}"
            for seed, test in ((str(run.seed), run.test) for run in runs if run.test is not None):
                yield Measured(
                    unit=unit,
                    measure="test_accuracy",
                    replicate=seed,
                    value=test.accuracy,
                    goal="max",
                    test_over_train=shared,
                )

    return compared(TrialRecord, measured, (first, second), threshold)
