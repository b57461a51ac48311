"""What the study adds to the command line: `plumbline show sweep`, `plumbline compare A B`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from plumbline.core.files import read_json
from plumbline.core.present.answer import Answer, Row

Goals = dict[tuple[str, str], Literal["max", "min"]]
"""(sweep, metric) -> max or min."""


def rows(record: dict[str, Any]) -> list[Row]:
    """What `plumbline show` says of a trial: the metrics, in the order in which the sweep names them."""
    return [Row({"sweep": record["sweep"], **record["parameters"], "seed": record["seed"]}, record["metrics"])]


def order(folder: Path) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Where `plumbline show` puts a trial of the study's `folder`: by its first metric, the best first, in its sweep.

    Trials without one come last. A sweep that has no summary yet, which knows the goal, stays as it is.
    """
    goals = _goals(folder)

    def place(record: dict[str, Any]) -> tuple[Any, ...]:
        name = _metrics(record["spec"])[0]
        goal, value = goals.get((record["sweep"], name)), record["metrics"].get(name)
        if goal is None or not isinstance(value, int | float):
            return record["sweep"], goal is not None, 0.0
        return record["sweep"], False, -value if goal == "max" else value

    return place


def compare(first: Path, second: Path, threshold: float | None) -> Answer:
    """What differs beyond noise between two results folders: the metrics of each point, paired by seed."""
    from plumbline.core.present.comparing import compared, study_folder
    from plumbline.core.statistics.before_after import Measured
    from plumbline.sweep.record import TrialRecord

    goals = _goals(study_folder(second, "sweep"))

    def measured(record: TrialRecord) -> Iterator[Measured]:
        unit = f"{record.sweep}/{record.point}"
        for name in _metrics(record.spec) if record.ok else ():
            goal, value = goals.get((record.sweep, name)), record.metrics[name]
            yield Measured(unit=unit, measure=name, replicate=str(record.seed), value=value, goal=goal)

    return compared(TrialRecord, measured, (first, second), threshold)


def _goals(folder: Path) -> Goals:
    """The goal of each metric, as the best.json of each sweep in the study's `folder` has it: a list of two metrics."""
    found: Goals = {}
    for path in folder.glob("*/best.json"):
        values = read_json(path)
        for one in values if isinstance(values, list) else [values]:
            found[path.parent.name, one["metric"]] = one["goal"]
    return found


def _metrics(spec: dict[str, Any]) -> list[str]:
    """The metrics of a trial, whose spec had one alone before it could have two."""
    return spec.get("metrics") or [spec.get("metric", "")]
