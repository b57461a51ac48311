"""What the study adds to the command line: `plumbline show data_parallel`, `plumbline compare A B`."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from plumbline.core.present.answer import Answer, Row


def rows(record: dict[str, Any]) -> list[Row]:
    """What `plumbline show` says of a trial. The rate is summary.csv's, which leaves the first epoch out."""
    epochs, test = record["epochs"], record["translations"].get("test", {})
    warm = [epoch for epoch in epochs if epoch["epoch"] > 0] or epochs
    ranks = Counter[int]()
    for epoch in warm:
        ranks[epoch["epoch"]] += epoch["tokens_per_sec"]
    keys = {name: record.get(name) for name in ("trial", "method", "scaling", "world", "batch")}
    rate = fmean(ranks.values()) if epochs else None
    last = epochs[-1]["validation_loss"] if epochs else None
    return [Row(keys, {"tokens_per_second": rate, "validation_loss": last, "test_bleu": test.get("bleu")})]


def compare(first: Path, second: Path, threshold: float | None) -> Answer:
    """What differs beyond noise between two results folders: the loss and the BLEU of each trial, one run each."""
    from plumbline.core.present.comparing import compared
    from plumbline.core.statistics.before_after import Measured
    from plumbline.data_parallel.record import TrialRecord

    def measured(record: TrialRecord) -> Iterator[Measured]:
        if record.ok:
            loss, bleu = record.epochs[-1].validation_loss, record.translations["test"].bleu
            yield Measured(unit=record.trial, measure="validation_loss", replicate="", value=loss, goal="min")
            yield Measured(unit=record.trial, measure="test_bleu", replicate="", value=bleu, goal="max")

    return compared(TrialRecord, measured, (first, second), threshold)
