"""Which point is best, how sure that is, and what being chosen as the best of many does to its score."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from plumbline.core.statistics.bootstrap import resampled_means
from plumbline.core.statistics.resampled import Resampled, corrected_mean
from plumbline.core.statistics.samples import Array
from plumbline.sweep.naming import point_label
from plumbline.sweep.record import TrialRecord

Goal = Literal["max", "min"]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The points whose trials are all `ok`, and their scores by seed. Seeds are the replicates."""

    records: Sequence[TrialRecord]
    """All trials of one sweep; with halving, of one budget."""
    metric: str
    goal: Goal
    chosen_by_smaller_budgets: bool = False
    """Whether the same seeds have chosen the points, with a smaller budget."""

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The metric: a row per point, in the order of the records, a column per seed.

        A point with a trial that failed is left out: the mean of the seeds that went well would flatter it.
        """
        found = pd.DataFrame(
            [
                {"point": one.point, "seed": one.seed, "score": one.metrics[self.metric] if one.ok else np.nan}
                for one in self.records
            ]
        )
        wide = found.pivot_table(index="point", columns="seed", values="score", sort=False, dropna=False)
        return wide.reindex(list(dict.fromkeys(found["point"]))).dropna()

    @cached_property
    def labels(self) -> dict[str, str]:
        """Point, as it is called in paths -> what it is called in sentences."""
        return {one.point: point_label(one.parameters) for one in self.records}

    @cached_property
    def means(self) -> dict[str, Resampled]:
        """Each point's mean over seeds with Student's 95% interval; NaN for the interval of a single seed."""
        return {str(point): corrected_mean(row.to_numpy(), test_over_train=0) for point, row in self.scores.iterrows()}

    @property
    def seeds_change_nothing(self) -> bool:
        """Whether each point has the same score with all of several seeds."""
        return self.scores.shape[1] > 1 and bool((self.scores.nunique(axis=1) == 1).all())

    @property
    def best(self) -> str | None:
        """The point with the best mean; the first of equal ones. None where no point is complete."""
        if self.scores.empty:
            return None
        means = self.signed.mean(axis=1)
        return str(self.scores.index[int(np.argmax(means))])

    @cached_property
    def probabilities(self) -> dict[str, float]:
        """How often each point is best when the seeds are drawn again, all points with the same ones (bootstrap).

        Equal points share a draw. NaN for a single seed, which says nothing about the spread.
        """
        points = [str(point) for point in self.scores.index]
        if self.scores.empty or self.scores.shape[1] < 2:
            return dict.fromkeys(points, float("nan"))
        drawn = resampled_means(self.signed)
        best = np.isclose(drawn, drawn.max(axis=0), rtol=1e-12, atol=0)
        return dict(zip(points, (best / best.sum(axis=0)).mean(axis=1).tolist(), strict=True))

    @property
    def unbiased(self) -> Resampled | None:
        """The score of the procedure "take the best": each seed's score of the point that the other seeds choose.

        The best of many noisy means is too good by what luck added to it (the winner's curse). A seed that had no part
        in the choice has no such luck, as in nested cross-validation (Cawley & Talbot 2010, JMLR 11). The choices share
        seeds, so the interval is that of Nadeau & Bengio 2003; with very many equal points it is still too narrow.
        A search that looks where earlier points did well (tpe) has seen all seeds, but not a point's own noise before
        it proposed the point. None for fewer than two seeds, and where the same seeds have chosen the points that are
        left with a smaller budget: then no seed had no part in the choice.
        """
        signed = self.signed
        seeds = signed.shape[1]
        if seeds < 2 or not len(signed) or self.chosen_by_smaller_budgets:
            return None
        others = (signed.sum(axis=1, keepdims=True) - signed) / (seeds - 1)
        chosen = others.argmax(axis=0)
        return corrected_mean(self.scores.to_numpy()[chosen, np.arange(seeds)], test_over_train=1 / (seeds - 1))

    @property
    def signed(self) -> Array:
        """Scores of which more is better."""
        values = self.scores.to_numpy(dtype=np.float64)
        return values if self.goal == "max" else -values
