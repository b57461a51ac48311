"""Tidy frames of the trial records: one row per run, and one row per trial with its intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.ablation.analysis.records import TrialRecord
from plumbline.core.run.record import Outcome, hardware
from plumbline.core.statistics.bootstrap import bootstrap_interval

SIDES = ("train", "validation", "test")
MEASURES = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
KEYS = ("trial", "view", "layers", "representation")
SUMMARIZED = (*(f"test_{measure}" for measure in MEASURES), "train_accuracy", "validation_accuracy", "gap")


def runs_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row per run: trial, seed, outcome, every measure on every side, the gap, epochs and seconds.

    `gap` is train accuracy minus test accuracy. A run that diverged has an outcome and no measures.
    """
    measures = {f"{side}_{measure}": (side, measure) for side in SIDES for measure in MEASURES}
    rows = []
    for record in records:
        for run in record.runs:
            row = {name: getattr(record, name) for name in KEYS} | {"seed": run.seed, "outcome": run.outcome.value}
            if run.outcome is Outcome.OK:
                row |= {name: getattr(getattr(run, side), measure) for name, (side, measure) in measures.items()}
                row["gap"] = row["train_accuracy"] - row["test_accuracy"]
            rows.append(row | {"best_epoch": run.best_epoch, "epochs": run.epochs, "seconds": run.seconds})
    columns = [*KEYS, "seed", "outcome", *measures, "gap", "best_epoch", "epochs", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def summary_frame(records: Sequence[TrialRecord], runs: pd.DataFrame) -> pd.DataFrame:
    """One row per trial, whatever its outcome.

    For each measure: the mean, the standard deviation (`_sd`) and the bootstrap 95% interval (`_low`, `_high`) over
    the trial's good runs. `chance` is one over the number of classes. `different_machines` says that not all trials
    ran on the same hardware, so that their times are not comparable.
    """
    names = [hardware(record.machine, record.device) for record in records]
    rows = []
    for record, machine in zip(records, names, strict=True):
        good = runs[(runs["trial"] == record.trial) & (runs["outcome"] == "ok")]
        row: dict[str, Any] = {name: getattr(record, name) for name in KEYS}
        row |= {"outcome": record.outcome.value, "message": record.message}
        row |= {"runs": len(record.runs), "runs_ok": len(good), "chance": 1 / len(record.classes)}
        row["test_rows"] = min((sum(map(sum, run.confusion or [])) for run in record.good_runs), default=0)
        row |= _described(good[list(SUMMARIZED)].to_numpy(dtype=np.float64))
        row |= {"rows": record.rows, "layer_count": record.layer_count}
        row |= {"feature_width": record.feature_width, "feature_width_used": record.feature_width_used}
        row["adapters_skipped"] = record.adapters.skipped
        row |= {"feature_seconds": record.feature_seconds, "training_seconds": record.seconds}
        row |= {"machine": machine, "different_machines": len(set(names)) > 1}
        rows.append(row)
    return pd.DataFrame(rows).astype({"feature_seconds": np.float64, "training_seconds": np.float64})


def _described(values: np.ndarray) -> dict[str, float]:
    """Mean, deviation and interval of each summarized measure, values (runs, measures); NaN without runs."""
    runs = len(values)
    nan = np.full(len(SUMMARIZED), np.nan)
    mean = values.mean(axis=0) if runs else nan
    deviation = values.std(axis=0, ddof=1) if runs > 1 else nan
    low, high = bootstrap_interval(values.T) if runs else (nan, nan)
    ends = {"": mean, "_sd": deviation, "_low": low, "_high": high}
    return {f"{name}{end}": float(column[i]) for i, name in enumerate(SUMMARIZED) for end, column in ends.items()}
