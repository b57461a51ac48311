"""What the figures of a sweep draw from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.core.run.records import read_results
from plumbline.sweep.analysis.budgets import rankings
from plumbline.sweep.analysis.frames import baseline_name, curves_frame, effects_frame, points_of
from plumbline.sweep.analysis.front import Front, front_of
from plumbline.sweep.analysis.ranking import Ranking
from plumbline.sweep.naming import folder_name
from plumbline.sweep.record import TrialRecord


@dataclass(frozen=True, kw_only=True)
class Data:
    """The records of one sweep, and what is asked of them."""

    records: Sequence[TrialRecord]
    by_metric: Sequence[Sequence[Ranking]]
    """Of each metric, a ranking for each budget of halving, the smallest first; or the only one."""
    budget: str | None
    baseline: str | None
    """The baseline's name."""

    @classmethod
    def read(cls, results: Path) -> "Data":
        """The data in the results.json of the stage `summarize`. Raises UserError for any other file."""
        records, merged = read_results(results, TrialRecord)
        asked = merged["asked"]
        by_metric = [rankings(records, one["name"], one["goal"], asked["budget"]) for one in asked["metrics"]]
        baseline = baseline_name(by_metric[0][-1].records, asked["baseline"])
        return cls(records=records, by_metric=by_metric, budget=asked["budget"], baseline=baseline)

    @property
    def stages(self) -> Sequence[Ranking]:
        """The rankings by the first metric, which most figures show."""
        return self.by_metric[0]

    @property
    def front(self) -> Front | None:
        """The Pareto front of two metrics; None with one."""
        return front_of([stages[-1] for stages in self.by_metric])

    @property
    def ranking(self) -> Ranking:
        """The ranking with the largest budget: of the best point."""
        return self.stages[-1]

    @property
    def every(self) -> Ranking:
        """The ranking that has every point: with halving, that of the smallest budget."""
        return self.stages[0]

    @cached_property
    def points(self) -> dict[str, dict[str, Any]]:
        """Point -> parameters, of every point that is ranked, with the smallest budget."""
        known = points_of(self.every.records)
        return {str(point): known[str(point)] for point in self.every.scores.index}

    @cached_property
    def parameters(self) -> list[str]:
        """The parameters that have several values."""
        every = list(points_of(self.every.records).values())
        return [name for name in every[0] if len({repr(values[name]) for values in every}) > 1]

    def values(self, parameter: str) -> list[Any]:
        """The parameter's distinct values among ranked points: numbers by size, others as they come."""
        found = list({repr(point[parameter]): point[parameter] for point in self.points.values()}.values())
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
        return sorted(found) if numeric else found

    @cached_property
    def effects(self) -> pd.DataFrame:
        """The mean over all points with one value of one parameter."""
        return effects_frame(self.every)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """All curves in long form."""
        return curves_frame(self.records)

    def seconds(self, point: str) -> list[float]:
        """The mean seconds of the point's trials; with halving, with each of its budgets, the smallest first."""
        return [self._seconds[name] for name in self._with_all_budgets[self._bare[point]]]

    @cached_property
    def _seconds(self) -> dict[str, float]:
        frame = pd.DataFrame([(one.point, one.seconds) for one in self.records], columns=["point", "seconds"])
        return {str(point): float(mean) for point, mean in frame.groupby("point")["seconds"].mean().items()}

    @cached_property
    def _bare(self) -> dict[str, str]:
        """Point -> the point without its budget."""
        return {name: folder_name(point, self.budget) for name, point in points_of(self.records).items()}

    @cached_property
    def _with_all_budgets(self) -> dict[str, list[str]]:
        """Point without its budget -> its points, the smallest budget first."""
        found: dict[str, list[str]] = {}
        for name, bare in self._bare.items():
            found.setdefault(bare, []).append(name)
        return found

    @property
    def unranked(self) -> str:
        """A note on points that the figures leave out; nothing where there are none."""
        lost = len(self.every.labels) - len(self.points)
        return f"{lost} of {len(self.points) + lost} points have failed trials and are left out." if lost else ""

    @property
    def smallest_budget(self) -> str:
        """A note on figures of every point; nothing without halving."""
        if self.budget is None:
            return ""
        return f"With {self.budget}={self.every.records[0].parameters[self.budget]}, which every point ran with."
