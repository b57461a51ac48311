"""Stage `sweep.summarize`: all records of one sweep as tidy tables, the best point, the findings."""

from collections.abc import Mapping
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
from plumbline.sweep.analysis.frames import contrasts_frame, curves_frame, effects_frame, points_frame, trials_frame
from plumbline.sweep.analysis.importance import importance_frame
from plumbline.sweep.analysis.ranking import Ranking
from plumbline.sweep.record import read_trials
from plumbline.sweep.settings import MetricSettings
from plumbline.sweep.trial.command import Value


class SummarizeSpec(MergeSpec):
    """What decides the summary: what is asked of the sweep, and the records' specs."""

    sweep: str
    metric: MetricSettings
    baseline: dict[str, Value] | None
    sampler: str | None
    """The search's sampler."""
    budget: str | None
    """Name of the parameter that halving raises."""


@stage
def summarize(spec: SummarizeSpec, trials: list[Path], output: Path) -> None:
    """Merges the sweep's records into `output` and writes everything computed from them beside it.

    trials.csv, points.csv, contrasts.csv, effects.csv and importance.csv are tidy tables, curves.parquet holds the
    curves in long form, best.json the best point, tables/ two tables for papers, analysis.md the findings. Raises
    UserError for a record that cannot be read or was made from another spec.
    """
    records = read_trials(trials, spec.records)
    stages = rankings(records, spec.metric.name, spec.metric.goal, spec.budget)
    every, ranking = stages[0], stages[-1]
    points = points_frame(ranking)
    contrasts = contrasts_frame(ranking, spec.baseline, stopped(stages))
    importance, folder = importance_frame(every), output.parent
    write_csv(trials_frame(records), folder / "trials.csv")
    lower = [points_frame(stage).assign(probability_best=np.nan) for stage in stages[-2::-1]]
    write_csv(pd.concat([points, *lower], ignore_index=True) if lower else points, folder / "points.csv")
    write_csv(contrasts, folder / "contrasts.csv")
    write_csv(effects_frame(every), folder / "effects.csv")
    write_csv(importance, folder / "importance.csv")
    with atomic(folder / "curves.parquet") as partial:
        curves_frame(records).to_parquet(partial, index=False)
    write_json(folder / "best.json", best_point(ranking))
    write_latex(
        points_table(points, ranking.labels),
        folder / "tables" / "points.tex",
        caption=f"Mean {spec.metric.name} of each point over seeds, with Student's 95% interval, and how often the"
        " point is the best in bootstrap draws of the seeds.",
        label=f"tab:{spec.sweep}-points",
    )
    write_latex(
        contrasts_table(contrasts, ranking.labels),
        folder / "tables" / "contrasts.tex",
        caption=f"{spec.metric.name} of each point minus that of the baseline, paired by seed, with 95% intervals and"
        " p-values corrected by Holm over all points.",
        label=f"tab:{spec.sweep}-contrasts",
    )
    asked = spec.model_dump(mode="json", include={"sweep", "metric", "baseline", "sampler", "budget"})
    write_results(output, records, asked=asked)
    found = findings(spec.sweep, stages, spec.baseline, contrasts, importance, sampler=spec.sampler, budget=spec.budget)
    write_text(folder / "analysis.md", found)


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


def points_table(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Each point with its mean and how often it is the best."""
    return pd.DataFrame(
        {
            "point": frame["point"].map(labels),
            "seeds": frame["seeds"].astype(str),
            "mean": [
                failed or with_interval(*row, digits=digits_of(*row))
                for failed, *row in zip(
                    frame["failed"].where(frame["failed"].notna(), None),
                    frame["mean"],
                    frame["mean_low"],
                    frame["mean_high"],
                    strict=True,
                )
            ],
            "best in": [MISSING if pd.isna(one) else f"{100 * one:.0f}%" for one in frame["probability_best"]],
        }
    )


def contrasts_table(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Each point's difference from the baseline."""
    rows = [
        {
            "point": labels[row["point"]],
            "pairs": str(row["pairs"]),
            "difference": with_interval(*ends, digits=digits_of(*ends), signed=True),
            "p": p_text(row["p_holm"]),
            "verdict": row["verdict"],
        }
        for row in frame.to_dict("records")
        for ends in [(row["difference"], row["difference_low"], row["difference_high"])]
    ]
    return pd.DataFrame(rows, columns=["point", "pairs", "difference", "p", "verdict"])


def _ends(mean: Resampled) -> dict[str, float | None]:
    return _known({"mean": mean.mean, "low": mean.low, "high": mean.high})


def _known(values: dict[str, float]) -> dict[str, float | None]:
    """`values` with null for NaN, for which JSON has no word."""
    return {name: None if pd.isna(value) else value for name, value in values.items()}


if __name__ == "__main__":
    summarize.main()
