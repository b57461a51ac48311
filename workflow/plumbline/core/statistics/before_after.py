"""Whether what was measured twice, before and after a change, differs by more than its noise."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from plumbline.core.statistics.contrasts import paired_contrast
from plumbline.core.statistics.hypothesis_tests import ALPHA, holm
from plumbline.core.statistics.samples import Array

Verdict = Literal["worse", "better", "different", "unclear", "unknown", "equal"]
VERDICTS: tuple[Verdict, ...] = ("worse", "better", "different", "unclear", "unknown", "equal")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number that a trial gave."""

    unit: str
    """What is compared: the trials of one unit are replicates of each other."""
    measure: str
    replicate: str
    """What tells the replicate, such as its seed: those of one name belong together, before and after."""
    value: float
    goal: Literal["max", "min"] | None
    """Whether more is better; None where that is not known."""
    test_over_train: float | None = 0.0
    """As for `corrected_mean`; None where replicates of one name have nothing in common, so that there are no pairs."""
    is_ratio: bool = False
    """Whether means are geometric, and are compared by their ratio; of unpaired replicates only."""
    is_count: bool = False
    """Whether it has no noise, so that a change is certain when all replicates agree; of unpaired replicates only."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One measure of one unit, before and after."""

    unit: str
    measure: str
    replicates: int
    before: float
    after: float
    low: float
    """Ends of the 95% interval of the mean difference, after minus before."""
    high: float
    p_value: float
    """Two-sided, Holm's correction over all changes that are looked at."""
    verdict: Verdict

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before


def changes(before: Iterable[Measured], after: Iterable[Measured], threshold: float) -> list[Change]:
    """One for each unit and measure that both sides have, of the replicates that both have.

    A change is `worse` or `better` (`different` without a goal) when its corrected p-value is below 5% and its whole
    interval is beyond `threshold` times the mean before; `equal` when all values are the same or the interval is within
    it; `unclear` when neither; `unknown` when one replicate, or values that do not vary, allow no test (counts need
    none). Pairs take the t-test of the differences, others Welch's.
    """
    first, second = _by_unit(before), _by_unit(after)
    found = [_change(first[key], second[key]) for key in first if key in second]
    made = [(change, goal) for pair in found if pair for change, goal in [pair]]
    corrected = holm([change.p_value for change, _ in made])
    return [
        replace(change, p_value=float(p), verdict=_verdict(replace(change, p_value=float(p)), goal, threshold))
        for (change, goal), p in zip(made, corrected, strict=True)
    ]


def _by_unit(measured: Iterable[Measured]) -> dict[tuple[str, str], list[Measured]]:
    found: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        if np.isfinite(one.value):
            found.setdefault((one.unit, one.measure), []).append(one)
    return found


def _change(before: Sequence[Measured], after: Sequence[Measured]) -> tuple[Change, str | None] | None:
    """Of one unit and measure, with the goal; the verdict is not yet known. None without a common replicate."""
    one, ratio = before[0], before[0].test_over_train
    if ratio is None:
        first, second = (np.array([each.value for each in side]) for side in (before, after))
        low, high, p_value = _unpaired(first, second, one)
    else:
        values = {each.replicate: each.value for each in after}
        pairs = [(each.value, values[each.replicate]) for each in before if each.replicate in values]
        if not pairs:
            return None
        first, second = np.array(pairs).T
        contrast = paired_contrast(second, first, test_over_train=ratio)
        low, high, p_value = contrast.low, contrast.high, contrast.p_value
    is_same = first.shape == second.shape and bool((first == second).all())
    means = [_geometric_mean(side) if one.is_ratio else float(side.mean()) for side in (first, second)]
    change = Change(
        unit=one.unit,
        measure=one.measure,
        replicates=min(len(first), len(second)),
        before=means[0],
        after=means[1],
        low=0.0 if is_same else low,
        high=0.0 if is_same else high,
        p_value=float("nan") if is_same else p_value,  # no test is needed, and none is corrected for
        verdict="unknown",
    )
    return change, one.goal


def _unpaired(first: Array, second: Array, one: Measured) -> tuple[float, float, float]:
    """As `_welch`, of the logarithms for ratios; a count that is the same in all replicates of a side needs no test."""
    if one.is_count and min(len(first), len(second)) > 1 and np.ptp(first) == np.ptp(second) == 0:
        difference = float(second[0] - first[0])
        return difference, difference, 0.0 if difference else float("nan")
    if not one.is_ratio:
        return _welch(first, second)
    (low, high, p_value), mean = _welch(np.log(first), np.log(second)), _geometric_mean(first)
    return mean * float(np.expm1(low)), mean * float(np.expm1(high)), p_value


def _geometric_mean(values: Array) -> float:
    return float(np.exp(np.log(values).mean()))


def _welch(first: Array, second: Array) -> tuple[float, float, float]:
    """Interval of the difference of means, second minus first, and its p-value; NaN with fewer than two of either."""
    if min(len(first), len(second)) < 2 or np.ptp(first) + np.ptp(second) == 0:
        return float("nan"), float("nan"), float("nan")
    from scipy.stats import ttest_ind  # takes a second to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one side may not vary
        test = ttest_ind(second, first, equal_var=False)
    interval = test.confidence_interval()
    return float(interval.low), float(interval.high), float(test.pvalue)


def _verdict(change: Change, goal: str | None, threshold: float) -> Verdict:
    margin = threshold * abs(change.before)
    if change.low == change.high == 0.0 or (margin and -margin < change.low and change.high < margin):
        return "equal"
    if np.isnan(change.p_value):
        return "unknown"
    if change.p_value >= ALPHA or (change.low <= margin and change.high >= -margin):
        return "unclear"
    if goal is None:
        return "different"
    return "better" if (change.low > margin) == (goal == "max") else "worse"
