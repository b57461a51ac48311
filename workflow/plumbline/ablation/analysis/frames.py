"""Tidy frames of the trial records: one row per run, and one row per trial and classifier with its intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.ablation.analysis.records import TrialRecord, are_copies, test_over_train
from plumbline.ablation.classifier.packed import unpack
from plumbline.core.run.record import Outcome, hardware
from plumbline.core.statistics.hypothesis_tests import clustered_above_p, holm
from plumbline.core.statistics.resampled import corrected_interval

SIDES = ("train", "validation", "test")
MEASURES = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
KEYS = ("trial", "view", "layers", "representation")
"""A trial of a classifier has these and `classifier`; together with it, `trial` is unique."""
SUMMARIZED = (*(f"test_{measure}" for measure in MEASURES), "train_accuracy", "validation_accuracy", "gap")


def runs_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row per run: trial, classifier, seed, outcome, every measure on every side, the gap, epochs and seconds.

    `gap` is train accuracy minus test accuracy. A run that diverged has an outcome and no measures.
    """
    measures = {f"{side}_{measure}": (side, measure) for side in SIDES for measure in MEASURES}
    rows = []
    for record in records:
        for run in record.runs:
            row = {name: getattr(record, name) for name in KEYS}
            row |= {"classifier": run.classifier, "seed": run.seed, "outcome": run.outcome.value}
            row["train_rows"] = run.train_rows
            if run.outcome is Outcome.OK:
                row |= {name: getattr(getattr(run, side), measure) for name, (side, measure) in measures.items()}
                row["gap"] = row["train_accuracy"] - row["test_accuracy"]
            rows.append(row | {"best_epoch": run.best_epoch, "epochs": run.epochs, "seconds": run.seconds})
    columns = [
        *KEYS,
        "classifier",
        "seed",
        "outcome",
        "train_rows",
        *measures,
        "gap",
        "best_epoch",
        "epochs",
        "seconds",
    ]
    return pd.DataFrame(rows, columns=columns)


def summary_frame(records: Sequence[TrialRecord], runs: pd.DataFrame) -> pd.DataFrame:
    """One row per trial and classifier, whatever the outcome.

    For each measure: the mean, the standard deviation (`_sd`) and the corrected resampled 95% interval (`_low`,
    `_high`) over the trial's good runs, with `test_over_train` as its correction (0 where all runs have one split).
    Runs that are `copies` (one split and no random part) count as one: they have no deviation and no interval.
    `chance` is one over the number of classes; `chance_p` tests that the accuracy is above it, by adapter and group,
    and `chance_p_holm` is corrected over all rows. `times_tested_least` and `_most`: in how many runs an adapter is
    tested. `training_seconds` sums over the classifier's runs. `different_machines` says that not all trials ran on
    the same hardware, so that their times are not comparable.
    """
    names = [hardware(record.machine, record.device) for record in records]
    rows = []
    pairs = zip(records, names, strict=True)
    for record, machine, classifier in ((*pair, classifier) for pair in pairs for classifier in pair[0].classifiers):
        own = runs[(runs["trial"] == record.trial) & (runs["classifier"] == classifier)]
        good = own[own["outcome"] == "ok"]
        row: dict[str, Any] = {name: getattr(record, name) for name in KEYS} | {"classifier": classifier}
        outcome = Outcome.DIVERGED if record.ok and good.empty else record.outcome
        row |= {"outcome": outcome.value, "message": record.message}
        row |= {"runs": len(own), "runs_ok": len(good), "chance": 1 / len(record.classes)}
        row |= _tested(record, classifier)
        distinct = good[:1] if row["copies"] else good
        row |= _described(distinct[list(SUMMARIZED)].to_numpy(dtype=np.float64), row["test_over_train"])
        row |= {"rows": record.rows, "layer_count": record.layer_count}
        row |= {"feature_width": record.feature_width, "feature_width_used": record.feature_width_used}
        row["adapters_skipped"] = record.adapters.skipped
        row["feature_seconds"] = record.feature_seconds
        row["training_seconds"] = own["seconds"].sum() if len(own) else None
        row |= {"machine": machine, "different_machines": len(set(names)) > 1}
        rows.append(row)
    frame = pd.DataFrame(rows).astype({"feature_seconds": np.float64, "training_seconds": np.float64})
    frame.insert(list(frame).index("chance_p") + 1, "chance_p_holm", holm(frame["chance_p"].to_numpy()))
    return frame


def learning_curve_frame(found: Mapping[str, Any], summary: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per representation and number of training adapters: mean and corrected interval of the test accuracy.

    found: what stage `learning_curve` wrote. The last row of a representation is its trial with the classifier
    `linear`, trained on all `adapters` of a run's training side, where there is such a trial. The sets of training
    adapters are drawn from those of the trials, so the intervals are corrected as theirs. No rows without curves.
    """
    keys, ends = ["view", "layers", "representation"], ["test_accuracy", "test_accuracy_low", "test_accuracy_high"]
    small = pd.DataFrame(found["rows"], columns=[*keys, "adapters", "run", "test_accuracy"])
    rows = []
    for curve in found["curves"]:
        place = {key: curve[key] for key in keys}
        for size, own in small[(small[keys] == list(place.values())).all(axis=1)].groupby("adapters"):
            values = own["test_accuracy"].to_numpy()
            low, high = np.clip(corrected_interval(values, test_over_train=found["test_over_train"]), 0, 1)
            point = dict(zip(ends, (values.mean(), low, high), strict=True))
            rows.append({**place, "adapters": size, "runs": len(values), **point})
        whole = summary[(summary[keys] == list(place.values())).all(axis=1) & (summary["classifier"] == "linear")]
        for _, trial in whole[whole["runs_ok"] > 0].iterrows():
            own = runs[(runs["trial"] == trial["trial"]) & (runs["classifier"] == "linear") & (runs["outcome"] == "ok")]
            size = round(own["train_rows"].mean())
            rows.append({**place, "adapters": size, "runs": len(own), **trial[ends]})
    return pd.DataFrame(rows, columns=[*keys, "adapters", "runs", *ends])


def _tested(record: TrialRecord, classifier: str) -> dict[str, float]:
    """Which adapters the good runs tested, whether all did the same, and the p-value of being no better than chance.

    Each adapter counts once, with the share of its runs that named its class. Adapters of one group share images.
    """
    runs = record.good_runs_of(classifier)
    if not runs:
        nothing = {"test_over_train": np.nan, "copies": False, "times_tested_least": 0, "times_tested_most": 0}
        return {**nothing, "chance_p": np.nan}
    predicted = np.stack([run.predictions for run in runs])
    times, right = (predicted >= 0).sum(axis=0), (predicted == unpack(record.labels)).sum(axis=0)
    tested = times > 0
    shares, groups = right[tested] / times[tested], unpack(record.groups)[tested]
    return {
        "test_over_train": test_over_train(runs),
        "copies": are_copies(runs),
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
