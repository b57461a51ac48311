"""What the study adds to the command line: `plumbline show sweep`, `plumbline compare A B`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plumbline.core.files import read_json
from plumbline.core.present.answer import Answer


def row(record: dict[str, Any]) -> dict[str, Any]:
    """What `plumbline show` says of a trial first."""
    return {"sweep": record["sweep"], **record["parameters"], "seed": record["seed"], **record["metrics"]}


def compare(first: Path, second: Path, threshold: float | None) -> Answer:
    """What differs beyond noise between two results folders: the metric of each point, paired by seed."""
    from plumbline.core.present.comparing import compared, study_folder
    from plumbline.core.statistics.before_after import Measured
    from plumbline.sweep.record import TrialRecord

    goals = {}
    for best in study_folder(second, "sweep").glob("*/best.json"):
        values = read_json(best)
        goals[best.parent.name, values["metric"]] = values["goal"]

    def measured(record: TrialRecord) -> Iterator[Measured]:
        name, unit = record.spec["metric"], f"{record.sweep}/{record.point}"
        if record.ok:
            goal, value = goals.get((record.sweep, name)), record.metrics[name]
            yield Measured(unit=unit, measure=name, replicate=str(record.seed), value=value, goal=goal)

    return compared(TrialRecord, measured, (first, second), threshold)
