"""Trial records as they were written, checked, with their learning curves; and how their numbers are read."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome, machine_name, read_record

CLASSES = ("converged", "spiked", "plateaued", "diverged")
CURVE = {"step": "step", "val_loss": "validation_loss"}
"""Column of metrics.csv -> key of a record's curve."""
FOUND = ("class", "final_validation_loss", "initial_validation_loss", "tokens", "tokens_per_second", "spans")
"""What a trial that was trained to its end, or to its divergence, has in its record."""


def read_records(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of the study's trials, by rate and seed, each with its `curve` from the metrics.csv beside it.

    `curve` holds `step` and `validation_loss`, a value per validation; it is empty for a trial that found
    something else than a loss. Raises UserError when there is not a record, when a file is none of this study,
    when one lacks a field or its metrics, or when two record the same trial.
    """
    if not paths:
        raise UserError("lr_sweep summary: no record was given; run the trials first (`make run`)")
    records: dict[tuple[float, int], dict[str, Any]] = {}
    for path in paths:
        record = read_record(path)
        if record.get("study") != "lr_sweep":
            raise UserError(f"{path}: is not a record of study lr_sweep; delete it to have it rebuilt")
        needed = {"rate", "seed", "outcome", "machine", *(FOUND if is_trained(record) else ())}
        if missing := needed - record.keys():
            raise UserError(f"{path}: the record lacks {', '.join(sorted(missing))}; delete it to have it rebuilt")
        key = float(record["rate"]), int(record["seed"])
        if key in records:
            raise UserError(f"{path}: trial {record['trial']} is recorded twice; keep one of the files")
        records[key] = record | {"curve": read_curve(path.with_name("metrics.csv")) if is_trained(record) else {}}
    return [records[key] for key in sorted(records)]


def is_trained(record: dict[str, Any]) -> bool:
    """Whether the trial has a loss, be it a diverged one; not so when it ran out of memory or time."""
    return record.get("outcome") in (Outcome.OK, Outcome.DIVERGED)


def number(value: Any) -> float:
    """A recorded number; "nan", "inf" and "-inf" are what they say, nothing is NaN."""
    return math.nan if value is None else float(value)


def recorded(value: float) -> float | str:
    """A number as records hold it: JSON has no word for a non-finite one, so that it becomes a string."""
    return value if math.isfinite(value) else str(value)


def read_curve(path: Path) -> dict[str, list[float | str]]:
    """Steps and validation losses of the rows of a metrics.csv that have a validation. Raises UserError."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["val_loss"]]
            return {key: [recorded(float(row[column])) for row in rows] for column, key in CURVE.items()}
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist; delete the record beside it to have its trial run again") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is not a metrics.csv ({error!r}); delete it and the record beside it") from None


def machine_note(records: Sequence[dict[str, Any]]) -> str:
    """A sentence when the trials ran on different machines, else nothing."""
    names = [machine_name(record) for record in records]
    if len(set(names)) < 2:
        return ""
    parts = ", ".join(f"{name}: {names.count(name)} trials" for name in dict.fromkeys(names))
    return f"The trials ran on different machines ({parts}): their speeds are not comparable."
