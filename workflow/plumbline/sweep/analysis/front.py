"""The Pareto front of two metrics: which points no other beats in both, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from plumbline.core.statistics.bootstrap import resampled_means
from plumbline.core.statistics.samples import Array
from plumbline.sweep.analysis.frames import TAKEN, free_name, points_of
from plumbline.sweep.analysis.ranking import Ranking

DIGITS = 12
"""Means are rounded to so many digits, each to its own, so that equal scores stay equal when they are resampled."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """The points of one sweep ranked by two metrics."""

    rankings: tuple[Ranking, Ranking]
    """Of the same records: a point that is ranked by one metric is ranked by the other."""

    @cached_property
    def points(self) -> list[str]:
        """The points that no other dominates by their means, the best by the first metric first."""
        means = [ranking.signed.mean(axis=1, keepdims=True) for ranking in self.rankings]
        inside = on_front(*means)[:, 0]
        names = [str(point) for point, is_inside in zip(self._names, inside, strict=True) if is_inside]
        maximize = self.rankings[0].goal == "max"
        return sorted(names, key=lambda point: self.rankings[0].means[point].mean, reverse=maximize)

    @cached_property
    def shares(self) -> dict[str, float]:
        """Point -> share of the bootstrap draws of the seeds in which it is on the front.

        All points and both metrics have the same seeds in a draw. NaN for a single seed, which says nothing about the
        spread.
        """
        if self.rankings[0].scores.shape[1] < 2:
            return dict.fromkeys(self._names, float("nan"))
        inside = on_front(*(resampled_means(ranking.signed) for ranking in self.rankings))
        return dict(zip(self._names, inside.mean(axis=1).tolist(), strict=True))

    @property
    def _names(self) -> list[str]:
        return [str(point) for point in self.rankings[0].scores.index]


def on_front(first: Array, second: Array) -> np.ndarray:
    """Whether no other point dominates a point: (points, draws) of two scores, more is better -> (points, draws) bool.

    A point dominates another that it equals or beats in both scores and beats in one; equal points do not dominate each
    other.
    """
    if not len(first):
        return np.zeros(first.shape, dtype=bool)
    first, second = _rounded(first), _rounded(second)
    order = np.lexsort((second, first), axis=0)[::-1]  # the best by the first score first; of equal ones, by the second
    one, two = (np.take_along_axis(values, order, axis=0) for values in (first, second))
    highest_before = np.full(two.shape, -np.inf)
    highest_before[1:] = np.maximum.accumulate(two, axis=0)[:-1]
    is_new = np.ones(two.shape, dtype=bool)
    is_new[1:] = (one[1:] != one[:-1]) | (two[1:] != two[:-1])
    numbers = np.where(is_new, np.arange(len(two))[:, np.newaxis], 0)
    first_equal = np.maximum.accumulate(numbers, axis=0)  # equal points are on the front together
    inside = np.take_along_axis(two > highest_before, first_equal, axis=0)
    found = np.empty_like(inside)
    np.put_along_axis(found, order, inside, axis=0)
    return found


def _rounded(values: Array) -> Array:
    mantissas, exponents = np.frexp(values)
    return np.asarray(np.ldexp(np.round(mantissas, DIGITS), exponents))


def front_frame(front: Front) -> pd.DataFrame:
    """A row per ranked point: parameters, both means with intervals, and how often it is on the front.

    Those on the front stand first, the best by the first metric on top; then those that other draws put on it.
    """
    parameters, shares = points_of(front.rankings[0].records), front.shares
    others = sorted((point for point in shares if point not in front.points), key=lambda point: -shares[point])
    rows = []
    for point in [*front.points, *others]:
        row = {"point": point} | {free_name(k, TAKEN, "parameter"): v for k, v in parameters[point].items()}
        for ranking in front.rankings:
            mean, name = ranking.means[point], free_name(ranking.metric, {*row, *TAKEN}, "metric")
            row |= {name: mean.mean, f"{name}_low": mean.low, f"{name}_high": mean.high}
        rows.append(row | {"on_front": point in front.points, "share_on_front": shares[point]})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["point", "on_front", "share_on_front"])


def front_of(rankings: Sequence[Ranking]) -> Front | None:
    """The front of two rankings; None for one."""
    if len(rankings) < 2:
        return None
    first, second = rankings
    return Front(rankings=(first, second))
