"""What the figures of a sweep draw from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.core.run.records import read_results
from plumbline.sweep.analysis.frames import baseline_name, curves_frame, effects_frame, points_of
from plumbline.sweep.analysis.ranking import Ranking
from plumbline.sweep.record import TrialRecord


@dataclass(frozen=True, kw_only=True)
class Data:
    """The records of one sweep, and what is asked of them."""

    records: Sequence[TrialRecord]
    ranking: Ranking
    baseline: str | None
    """The baseline's name."""

    @classmethod
    def read(cls, results: Path) -> "Data":
        """The data in the results.json of the stage `summarize`. Raises UserError for any other file."""
        records, merged = read_results(results, TrialRecord)
        asked = merged["asked"]
        ranking = Ranking(records=records, metric=asked["metric"]["name"], goal=asked["metric"]["goal"])
        return cls(records=records, ranking=ranking, baseline=baseline_name(records, asked["baseline"]))

    @cached_property
    def points(self) -> dict[str, dict[str, Any]]:
        """Point -> parameters, of the points that are ranked."""
        known = points_of(self.records)
        return {str(point): known[str(point)] for point in self.ranking.scores.index}

    @cached_property
    def parameters(self) -> list[str]:
        """The parameters that have several values."""
        every = list(points_of(self.records).values())
        return [name for name in every[0] if len({repr(values[name]) for values in every}) > 1]

    def values(self, parameter: str) -> list[Any]:
        """The parameter's distinct values among ranked points: numbers by size, others as they come."""
        found = list({repr(point[parameter]): point[parameter] for point in self.points.values()}.values())
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
        return sorted(found) if numeric else found

    @cached_property
    def effects(self) -> pd.DataFrame:
        """The mean over all points with one value of one parameter."""
        return effects_frame(self.ranking)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """All curves in long form."""
        return curves_frame(self.records)

    @property
    def unranked(self) -> str:
        """A note on points that the figures leave out; nothing where there are none."""
        lost = len(points_of(self.records)) - len(self.points)
        return f"{lost} of {len(self.points) + lost} points have failed trials and are left out." if lost else ""
