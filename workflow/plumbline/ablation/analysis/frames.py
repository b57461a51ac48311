"""Tidy frames of the trial records: one row per run, and one row per trial with its intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.ablation.analysis.records import TrialRecord
from plumbline.ablation.classifier.packed import unpack
from plumbline.core.run.record import Outcome, hardware
from plumbline.core.statistics.hypothesis_tests import clustered_above_p, holm
from plumbline.core.statistics.resampled import corrected_interval

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

    For each measure: the mean, the standard deviation (`_sd`) and the corrected resampled 95% interval (`_low`,
    `_high`) over the trial's good runs, with `test_over_train` as its correction (0 where all runs have one split).
    `chance` is one over the number of classes; `chance_p` tests that the accuracy is above it, by adapter and group,
    and `chance_p_holm` is corrected over all trials. `times_tested_least` and `_most`: in how many runs an adapter is
    tested. `different_machines` says that not all trials ran on the same hardware, so that their times are not
    comparable.
    """
    names = [hardware(record.machine, record.device) for record in records]
    rows = []
    for record, machine in zip(records, names, strict=True):
        good = runs[(runs["trial"] == record.trial) & (runs["outcome"] == "ok")]
        row: dict[str, Any] = {name: getattr(record, name) for name in KEYS}
        row |= {"outcome": record.outcome.value, "message": record.message}
        row |= {"runs": len(record.runs), "runs_ok": len(good), "chance": 1 / len(record.classes)}
        row |= _tested(record)
        row |= _described(good[list(SUMMARIZED)].to_numpy(dtype=np.float64), row["test_over_train"])
        row |= {"rows": record.rows, "layer_count": record.layer_count}
        row |= {"feature_width": record.feature_width, "feature_width_used": record.feature_width_used}
        row["adapters_skipped"] = record.adapters.skipped
        row |= {"feature_seconds": record.feature_seconds, "training_seconds": record.seconds}
        row |= {"machine": machine, "different_machines": len(set(names)) > 1}
        rows.append(row)
    frame = pd.DataFrame(rows).astype({"feature_seconds": np.float64, "training_seconds": np.float64})
    frame.insert(list(frame).index("chance_p") + 1, "chance_p_holm", holm(frame["chance_p"].to_numpy()))
    return frame


def _tested(record: TrialRecord) -> dict[str, float]:
    """Which adapters the good runs tested, and the p-value that they were named no better than by chance.

    Each adapter counts once, with the share of its runs that named its class. Adapters of one group share images.
    """
    if not record.good_runs:
        return {"test_over_train": np.nan, "times_tested_least": 0, "times_tested_most": 0, "chance_p": np.nan}
    times, right = record.times_tested(), record.times_right()
    tested = times > 0
    shares, groups = right[tested] / times[tested], unpack(record.groups)[tested]
    return {
        "test_over_train": record.test_over_train,
        "times_tested_least": int(times.min()),
        "times_tested_most": int(times.max()),
        "chance_p": clustered_above_p(shares, groups, 1 / len(record.classes)),
    }


def _described(values: np.ndarray, test_over_train: float) -> dict[str, float]:
    """Mean, deviation and interval of each summarized measure, values (runs, measures); NaN without runs.

    A measure is a share, or the difference of two: an interval does not reach beyond what is possible.
    """
    runs = len(values)
    nan = np.full(len(SUMMARIZED), np.nan)
    mean = values.mean(axis=0) if runs else nan
    deviation = values.std(axis=0, ddof=1) if runs > 1 else nan
    low, high = corrected_interval(values.T, test_over_train=test_over_train) if runs else (nan, nan)
    least = [-1.0 if name == "gap" else 0.0 for name in SUMMARIZED]
    ends = {"": mean, "_sd": deviation, "_low": np.maximum(low, least), "_high": np.minimum(high, 1.0)}
    return {f"{name}{end}": float(column[i]) for i, name in enumerate(SUMMARIZED) for end, column in ends.items()}
