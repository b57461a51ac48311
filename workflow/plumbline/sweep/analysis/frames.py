"""Records as tables: trials, points, contrasts with the baseline, effects of each parameter, curves."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.plan.target import canonical
from plumbline.core.statistics.contrasts import paired_contrast
from plumbline.core.statistics.hypothesis_tests import ALPHA, holm
from plumbline.core.statistics.resampled import corrected_mean
from plumbline.sweep.analysis.ranking import Ranking
from plumbline.sweep.record import TrialRecord

SAME = "not significantly different"
TAKEN = {"metric", "point", "seeds", "failed", "mean", "mean_low", "mean_high", "probability_best"} | {
    "on_front",
    "share_on_front",
}


def trials_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """A row per trial: point, parameters, seed, outcome, metrics, seconds. A name that is taken is prefixed."""
    taken = {"point", "seed", "outcome", "message", "seconds"}
    rows = []
    for one in records:
        row: dict[str, Any] = {"point": one.point, "seed": one.seed, "outcome": str(one.outcome)}
        row |= {free_name(name, taken, "parameter"): value for name, value in one.parameters.items()}
        row |= {free_name(name, taken | set(one.parameters), "metric"): value for name, value in one.metrics.items()}
        rows.append(row | {"seconds": one.seconds, "message": one.message})
    return pd.DataFrame(rows)


def points_frame(ranking: Ranking) -> pd.DataFrame:
    """A row per point, the best first, those with a failed trial last: mean with interval, and how often it is best."""
    rows, seeds = [], Counter(one.point for one in ranking.records)
    failures: dict[str, Counter[str]] = {}
    for one in ranking.records:
        failures.setdefault(one.point, Counter()).update([] if one.ok else [str(one.outcome)])
    for point, parameters in points_of(ranking.records).items():
        failed = failures[point]
        row: dict[str, Any] = {"metric": ranking.metric, "point": point, "seeds": seeds[point]}
        row |= {free_name(name, TAKEN, "parameter"): value for name, value in parameters.items()}
        row["failed"] = ", ".join(f"{count} {outcome}" for outcome, count in failed.items()) or None
        if mean := ranking.means.get(point):
            row |= {"mean": mean.mean, "mean_low": mean.low, "mean_high": mean.high}
            row["probability_best"] = ranking.probabilities[point]
        rows.append(row)
    frame = pd.DataFrame(rows)
    for name in ("mean", "mean_low", "mean_high", "probability_best"):
        frame[name] = frame[name].astype(float) if name in frame else np.nan
    return frame.sort_values(
        "mean", ascending=ranking.goal == "min", na_position="last", kind="stable", ignore_index=True
    )


def contrasts_frame(rankings: Sequence[Ranking], baseline: Mapping[str, Any] | None, unseen: int = 0) -> pd.DataFrame:
    """Each point against the baseline in each metric, paired by seed, p-values corrected by Holm over all rows.

    rankings: one for each metric, of the same records. Empty without a baseline. unseen: points that halving stopped
    before, on these seeds. They count in the correction as if their p-value were 1, so that it holds however the points
    that are left were chosen: by the union bound over all that began.

    A point with a failed trial is not tested: what its other seeds gave would flatter it. Of the baseline, the seeds
    that are `ok` count. Fewer than two pairs give neither interval nor verdict.
    """
    columns = ["metric", "point", "pairs", "difference", "difference_low", "difference_high", "p_value", "cohens_dz"]
    name = baseline_name(rankings[0].records, baseline)
    rows = [row for ranking in rankings for row in _contrasts_with(name, ranking)] if name else []
    frame = pd.DataFrame(rows, columns=columns)
    family = np.concatenate([frame["p_value"].to_numpy(dtype=np.float64), np.ones(unseen)])
    frame.insert(columns.index("cohens_dz"), "p_holm", holm(family)[: len(frame)])
    signs = frame["metric"].map({ranking.metric: 1.0 if ranking.goal == "max" else -1.0 for ranking in rankings})
    better = (frame["difference"] * signs).to_numpy(dtype=np.float64) > 0
    verdicts = np.where(frame["p_holm"] <= ALPHA, np.where(better, "better", "worse"), SAME)
    frame["verdict"] = np.where(frame["p_holm"].isna(), "not tested", verdicts)
    return frame


def _contrasts_with(baseline: str, ranking: Ranking) -> Iterator[dict[str, Any]]:
    """A row of contrasts_frame for each other point, without the correction and the verdict."""
    scores = {(one.point, one.seed): one.metrics[ranking.metric] for one in ranking.records if one.ok}
    seeds = sorted({one.seed for one in ranking.records})
    failed = {one.point for one in ranking.records if not one.ok}
    for point in points_of(ranking.records):
        both = [seed for seed in seeds if {(point, seed), (baseline, seed)} <= scores.keys()]
        row = {"metric": ranking.metric, "point": point, "pairs": 0}
        if point == baseline:
            continue
        if not both or point in failed:
            yield row
            continue
        ours, theirs = ([scores[name, seed] for seed in both] for name in (point, baseline))
        found = paired_contrast(ours, theirs, test_over_train=0)
        row |= {"pairs": found.pairs, "difference": found.difference, "p_value": found.p_value}
        row |= {"difference_low": found.low, "difference_high": found.high}
        # Differences that do not vary make it infinite, for which a table has no number.
        yield row | {"cohens_dz": found.cohens_dz if math.isfinite(found.cohens_dz) else None}


def effects_frame(ranking: Ranking) -> pd.DataFrame:
    """The mean of the metric with each value of each parameter, with its interval over seeds.

    Values of one parameter are compared over the same combinations of the others: those that are ranked with all of
    its values. A parameter without such a combination has no rows.
    """
    rows = []
    points = {point: values for point, values in points_of(ranking.records).items() if point in ranking.means}
    for parameter in next(iter(points.values()), {}):
        found: dict[str, dict[str, str]] = {}  # value -> the other parameters -> point
        values: dict[str, Any] = {}
        for point, of in points.items():
            rest = canonical({name: value for name, value in of.items() if name != parameter})
            found.setdefault(canonical(of[parameter]), {})[rest] = point
            values[canonical(of[parameter])] = of[parameter]
        shared = set.intersection(*(set(each) for each in found.values()))
        for key, by_rest in found.items() if shared else ():
            chosen = [by_rest[rest] for rest in sorted(shared)]
            mean = corrected_mean(ranking.scores.loc[chosen].mean().to_numpy(), test_over_train=0)
            row = {"metric": ranking.metric, "parameter": parameter, "value": values[key], "points": len(chosen)}
            rows.append(row | {"mean": mean.mean, "mean_low": mean.low, "mean_high": mean.high})
    frame = pd.DataFrame(rows, columns=["metric", "parameter", "value", "points", "mean", "mean_low", "mean_high"])
    frame["value"] = pd.Series([row["value"] for row in rows], dtype=object)  # 16 stays 16 beside 0.001
    return frame


def curves_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """All curves in long form: point, seed, step, name, value."""
    parts = [
        pd.DataFrame({"point": one.point, "seed": one.seed, "step": one.curves["step"], "name": name, "value": values})
        for one in records
        for name, values in one.curves.items()
        if name != "step"
    ]
    columns = ["point", "seed", "step", "name", "value"]
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return whole.astype({"step": float, "value": float})


def points_of(records: Sequence[TrialRecord]) -> dict[str, dict[str, Any]]:
    """Point -> parameters, in the order of the records."""
    return {one.point: one.parameters for one in records}


def baseline_name(records: Sequence[TrialRecord], baseline: Mapping[str, Any] | None) -> str | None:
    """The baseline as it is called in paths; None where there is none, or where halving lost it to a failed trial."""
    if baseline is None:
        return None
    wanted = canonical(dict(baseline))
    return next((name for name, point in points_of(records).items() if canonical(point) == wanted), None)


def free_name(name: str, taken: set[str], kind: str) -> str:
    """`name` as a column: with its kind before it where the table has a column of that name."""
    return f"{kind}.{name}" if name in taken else name
