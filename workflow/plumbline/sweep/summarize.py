"""Stage `sweep.summarize`: all records of one sweep as tidy tables, the best point, the findings."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.files import atomic, write_json, write_text
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.formatting import MISSING, p_text, with_interval
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.records import write_results
from plumbline.core.run.stage import stage
from plumbline.core.statistics.resampled import Resampled
from plumbline.sweep.analysis.budgets import rankings, stopped
from plumbline.sweep.analysis.findings import digits_of, findings
from plumbline.sweep.analysis.frames import (
    contrasts_frame,
    curves_frame,
    effects_frame,
    free_name,
    points_frame,
    trials_frame,
)
from plumbline.sweep.analysis.front import Front, front_of
from plumbline.sweep.analysis.importance import importance_frame
from plumbline.sweep.analysis.ranking import Ranking
from plumbline.sweep.record import read_trials
from plumbline.sweep.settings import MetricSettings
from plumbline.sweep.trial.command import Value


class SummarizeSpec(MergeSpec):
    """What decides the summary: what is asked of the sweep, and the records' specs."""

    sweep: str
    metrics: list[MetricSettings]
    baseline: dict[str, Value] | None
    sampler: str | None
    """The search's sampler."""
    budget: str | None
    """Name of the parameter that halving raises."""


@stage
def summarize(spec: SummarizeSpec, trials: list[Path], output: Path) -> None:
    """Merges the sweep's records into `output` and writes everything computed from them beside it.

    trials.csv, points.csv, contrasts.csv, effects.csv and importance.csv are tidy tables, curves.parquet holds the
    curves in long form, best.json the best point (a list of two where there are two metrics), tables/ two tables for
    papers, analysis.md the findings. Raises UserError for a record that cannot be read or was made from another spec.
    """
    records = read_trials(trials, spec.records)
    by_metric = [rankings(records, one.name, one.goal, spec.budget) for one in spec.metrics]
    every, largest = [stages[0] for stages in by_metric], [stages[-1] for stages in by_metric]
    contrasts = contrasts_frame(largest, spec.baseline, stopped(by_metric[0]))
    importance, front, folder = _together(map(importance_frame, every)), front_of(largest), output.parent
    write_csv(trials_frame(records), folder / "trials.csv")
    lower = [points_frame(stage).assign(probability_best=np.nan) for stage in by_metric[0][-2::-1]]
    write_csv(_together([*map(points_frame, largest), *lower]), folder / "points.csv")
    write_csv(contrasts, folder / "contrasts.csv")
    write_csv(_together(map(effects_frame, every)), folder / "effects.csv")
    write_csv(importance, folder / "importance.csv")
    with atomic(folder / "curves.parquet") as partial:
        curves_frame(records).to_parquet(partial, index=False)
    best = [best_point(ranking) for ranking in largest]
    write_json(folder / "best.json", best[0] if len(best) == 1 else best)
    write_tables(folder / "tables", spec.sweep, largest, contrasts, front)
    asked = spec.model_dump(mode="json", include={"sweep", "metrics", "baseline", "sampler", "budget"})
    write_results(output, records, asked=asked)
    found = findings(
        spec.sweep,
        by_metric,
        spec.baseline,
        contrasts,
        importance,
        front=front,
        sampler=spec.sampler,
        budget=spec.budget,
    )
    write_text(folder / "analysis.md", found)


def _together(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all frames, which have the same columns."""
    known = list(frames)
    return pd.concat([frame for frame in known if len(frame)] or known[:1], ignore_index=True)


def write_tables(
    folder: Path, sweep: str, rankings: Sequence[Ranking], contrasts: pd.DataFrame, front: Front | None
) -> None:
    """The tables for papers, as LaTeX."""
    names = " and ".join(ranking.metric for ranking in rankings)
    chance = "is the best" if front is None else "is on the Pareto front"
    write_latex(
        points_table(rankings, front),
        folder / "points.tex",
        caption=f"Mean {names} of each point over seeds, with Student's 95% interval, and how often the"
        f" point {chance} in bootstrap draws of the seeds.",
        label=f"tab:{sweep}-points",
    )
    write_latex(
        contrasts_table(contrasts, rankings),
        folder / "contrasts.tex",
        caption=f"{names} of each point minus that of the baseline, paired by seed, with 95% intervals and"
        " p-values corrected by Holm over all rows.",
        label=f"tab:{sweep}-contrasts",
    )


def best_point(ranking: Ranking) -> dict[str, Any]:
    """The best point as JSON values; `point` is null where none is complete, an interval where there is one seed."""
    best = ranking.best
    if best is None:
        return {"point": None, "metric": ranking.metric, "goal": ranking.goal}
    (parameters, *_) = [one.parameters for one in ranking.records if one.point == best]
    chosen = ranking.unbiased
    found: dict[str, Any] = {"point": best, "parameters": parameters, "metric": ranking.metric, "goal": ranking.goal}
    found |= {"points": len(ranking.scores), "seeds": ranking.scores.shape[1]}
    found["score"] = _ends(ranking.means[best])
    found |= _known({"probability_best": ranking.probabilities[best]})
    found["score_on_seeds_that_did_not_choose"] = chosen and _ends(chosen)
    return found


def points_table(rankings: Sequence[Ranking], front: Front | None) -> pd.DataFrame:
    """Each point with its mean in each metric, and how often it is the best, or on the front of two metrics."""
    frames = [points_frame(ranking) for ranking in rankings]
    points, labels = frames[0]["point"], rankings[0].labels
    columns: dict[str, Any] = {"point": points.map(labels), "seeds": frames[0]["seeds"].astype(str)}
    chance = "best in" if front is None else "on the front in"
    for ranking, frame in zip(rankings, frames, strict=True):
        cells = frame.set_index("point").apply(_mean_cell, axis=1)
        name = "mean" if front is None else free_name(ranking.metric, {*columns, chance}, "metric")
        columns[name] = list(cells.loc[points])
    shares = rankings[0].probabilities if front is None else front.shares
    known = [shares.get(point, float("nan")) for point in points]
    shown = [MISSING if pd.isna(share) else f"{100 * share:.0f}%" for share in known]
    return pd.DataFrame(columns | {chance: shown})


def _mean_cell(row: "pd.Series[Any]") -> str:
    """The mean of one row of points_frame with its interval; or how its trials failed."""
    ends = row["mean"], row["mean_low"], row["mean_high"]
    return row["failed"] if isinstance(row["failed"], str) else with_interval(*ends, digits=digits_of(*ends))


def contrasts_table(frame: pd.DataFrame, rankings: Sequence[Ranking]) -> pd.DataFrame:
    """Each point's difference from the baseline; in each of two metrics."""
    labels = rankings[0].labels
    rows = [
        {
            "metric": row["metric"],
            "point": labels[row["point"]],
            "pairs": str(row["pairs"]),
            "difference": with_interval(*ends, digits=digits_of(*ends), signed=True),
            "p": p_text(row["p_holm"]),
            "verdict": row["verdict"],
        }
        for row in frame.to_dict("records")
        for ends in [(row["difference"], row["difference_low"], row["difference_high"])]
    ]
    columns = ["metric"] if len(rankings) > 1 else []
    return pd.DataFrame(rows, columns=[*columns, "point", "pairs", "difference", "p", "verdict"])


def _ends(mean: Resampled) -> dict[str, float | None]:
    return _known({"mean": mean.mean, "low": mean.low, "high": mean.high})


def _known(values: dict[str, float]) -> dict[str, float | None]:
    """`values` with null for NaN, for which JSON has no word."""
    return {name: None if pd.isna(value) else value for name, value in values.items()}


if __name__ == "__main__":
    summarize.main()
