"""Trial records as tidy frames: one row per run, and one row per trial with its intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plumbline.ablation.analysis.labels import LAYERS, REPRESENTATIONS, VIEWS
from plumbline.core.errors import UserError
from plumbline.core.files import read_json
from plumbline.core.run.record import machine_name
from plumbline.core.statistics.bootstrap import bootstrap_interval

SCHEMA = 1
SIDES = ("train", "validation", "test")
MEASURES = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
KEYS = ("view", "layers", "representation")
SUMMARISED = (*(f"test_{measure}" for measure in MEASURES), "train_accuracy", "validation_accuracy", "gap")
_ORDER = (*VIEWS, *LAYERS, *REPRESENTATIONS)


def read_records(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of the study's trials, by view, layer set and representation.

    Raises UserError when there is none, when a file is not a record of this study and schema, or when two
    files record the same trial.
    """
    if not paths:
        raise UserError("ablation summary: no record was given; run the trials first (`make run`)")
    records: dict[tuple[str, ...], dict[str, Any]] = {}
    for path in paths:
        record = read_json(path)
        if not isinstance(record, dict) or (record.get("study"), record.get("schema")) != (
            "ablation",
            SCHEMA,
        ):
            raise UserError(f"{path}: is not a record of study ablation, schema {SCHEMA}; delete it to have it rebuilt")
        missing = {*KEYS, "outcome", "runs", "classes", "machine"} - record.keys()
        if missing:
            raise UserError(f"{path}: the record lacks {', '.join(sorted(missing))}; delete it to have it rebuilt")
        key = tuple(record[name] for name in KEYS)
        if key in records:
            raise UserError(f"{path}: trial {'/'.join(key)} is recorded twice; keep one of the files")
        records[key] = record
    return [records[key] for key in sorted(records, key=lambda key: [_rank(name) for name in key])]


def chance(records: Sequence[dict[str, Any]]) -> float:
    """Accuracy of guessing: one over the number of classes.

    Raises UserError when the trials do not share their classes, for then they cannot be compared.
    """
    classes = {tuple(record["classes"]) for record in records}
    if len(classes) > 1:
        raise UserError("ablation summary: the records have different classes; summarise one data set at a time")
    return 1 / len(classes.pop())


def runs_frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per run: trial, seed, outcome, every measure on every side, the gap, epochs and seconds.

    `gap` is the train accuracy minus the test accuracy. A run that did not end well has its outcome and no
    measures.
    """
    columns = ["trial", *KEYS, "seed", "outcome", *(f"{s}_{m}" for s in SIDES for m in MEASURES)]
    rows = []
    for record in records:
        for run in record["runs"]:
            row = {"trial": record["trial"], **{name: record[name] for name in KEYS}}
            row |= {"seed": run["seed"], "outcome": run["outcome"]}
            if run["outcome"] == "ok":
                row |= {f"{side}_{measure}": run[side][measure] for side in SIDES for measure in MEASURES}
                row["gap"] = run["train"]["accuracy"] - run["test"]["accuracy"]
            row |= {name: run.get(name) for name in ("best_epoch", "epochs", "seconds")}
            rows.append(row)
    return pd.DataFrame(rows, columns=[*columns, "gap", "best_epoch", "epochs", "seconds"])


def trial_outcome(record: dict[str, Any]) -> str:
    """The trial's outcome; where it is ok and yet no run was, what its first run found."""
    runs = [run["outcome"] for run in record["runs"]]
    if record["outcome"] == "ok" and "ok" not in runs:
        return runs[0] if runs else "invalid_output"
    return str(record["outcome"])


def summary_frame(records: Sequence[dict[str, Any]], runs: pd.DataFrame) -> pd.DataFrame:
    """One row per trial, whatever its outcome.

    Of each measure: mean, standard deviation, and the bootstrap 95% interval `_low`, `_high` over its good
    runs. `feature_seconds` is one pass over the data, which all layer sets of a representation share;
    `different_machines` says that not all trials ran on the same hardware, so that seconds compare badly.
    """
    level = chance(records)
    machines = [machine_name(record) for record in records]
    rows = []
    for record, machine in zip(records, machines, strict=True):
        good = runs[(runs["trial"] == record["trial"]) & (runs["outcome"] == "ok")]
        row: dict[str, Any] = {"trial": record["trial"], **{name: record[name] for name in KEYS}}
        row |= {"outcome": trial_outcome(record), "message": record.get("message")}
        row |= {"runs": len(record["runs"]), "runs_ok": len(good), "chance": level}
        row["test_rows"] = min((int(np.sum(run["confusion"])) for run in record["runs"] if run["confusion"]), default=0)
        row |= _described(good[list(SUMMARISED)].to_numpy(dtype=np.float64))
        row |= {name: record.get(name) for name in ("rows", "layer_count", "feature_width", "feature_width_used")}
        row["adapters_skipped"] = record.get("adapters", {}).get("skipped", 0)
        row["feature_seconds"] = record.get("feature_seconds")
        row["training_seconds"] = record.get("seconds")
        row |= {"machine": machine, "different_machines": len(set(machines)) > 1}
        rows.append(row)
    frame = pd.DataFrame(rows)
    seconds = ["feature_seconds", "training_seconds"]
    frame[seconds] = frame[seconds].astype(np.float64)
    return frame


def machine_note(summary: pd.DataFrame) -> str:
    """A sentence when the trials ran on different machines, else nothing."""
    counts = summary["machine"].value_counts()
    if len(counts) < 2:
        return ""
    parts = ", ".join(f"{name}: {count} trials" for name, count in counts.items())
    return f"The trials ran on different machines ({parts}): their seconds are not comparable."


def _described(values: np.ndarray) -> dict[str, float]:
    """Mean, deviation and interval of each summarised measure, values (runs, measures); NaN without runs."""
    runs = len(values)
    nan = np.full(len(SUMMARISED), np.nan)
    mean = values.mean(axis=0) if runs else nan
    deviation = values.std(axis=0, ddof=1) if runs > 1 else nan
    low, high = bootstrap_interval(values.T) if runs else (nan, nan)
    ends = {"": mean, "_sd": deviation, "_low": low, "_high": high}
    return {f"{name}{end}": float(column[i]) for i, name in enumerate(SUMMARISED) for end, column in ends.items()}


def _rank(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)
