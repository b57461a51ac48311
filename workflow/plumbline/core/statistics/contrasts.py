"""Paired contrasts: one series against another, run by run."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.bootstrap import CONFIDENCE
from plumbline.core.statistics.effect_sizes import cohens_dz, rank_biserial
from plumbline.core.statistics.resampled import corrected_mean
from plumbline.core.statistics.samples import Array, paired, rounded


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A paired comparison of `sample` with `baseline`, run by run. Positive: the sample is higher.

    `difference` is the mean difference with its 95% interval `low`, `high`; `relative` the ratio of the means minus
    one with its interval. `p_value` is two-sided. Effect sizes: matched-pairs rank-biserial correlation, Cohen's d_z.
    """

    pairs: int
    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    p_value: float
    rank_biserial: float
    cohens_dz: float


def paired_contrast(sample: ArrayLike, baseline: ArrayLike, *, test_over_train: float) -> Contrast:
    """Compares two series of equal length, paired by position, with the corrected resampled t interval and test.

    test_over_train: as for `corrected_mean`; 0 for pairs that share no data, which gives the ordinary paired t-test.
    The interval of the relative difference holds 0 where that of the difference does (`relative_interval`); both
    are NaN when the baseline's mean is zero. d_z is infinite when all differences are the same and not zero.
    Raises ValueError for unequal lengths.
    """
    first, second = paired(sample, baseline)
    differences = rounded(first - second)
    found = corrected_mean(differences, test_over_train=test_over_train)
    relative = relative_low = relative_high = float("nan")
    if second.mean():
        relative = float(first.mean() / second.mean()) - 1
        relative_low, relative_high = relative_interval(first, second, test_over_train=test_over_train)
    return Contrast(
        pairs=len(differences),
        difference=found.mean,
        low=found.low,
        high=found.high,
        relative=relative,
        relative_low=relative_low,
        relative_high=relative_high,
        p_value=found.p_value,
        rank_biserial=rank_biserial(differences),
        cohens_dz=cohens_dz(differences),
    )


def relative_interval(first: Array, second: Array, *, test_over_train: float) -> tuple[float, float]:
    """Fieller's 95% interval (1954, J. R. Stat. Soc. B 16) of mean(first) ÷ mean(second) − 1, of paired values (n,).

    It holds every ratio ρ for which the corrected interval of first − ρ · second holds 0. NaN for a single pair, and
    where the second mean cannot be told from 0, so that the ratio has no bounds.
    """
    n = len(first)
    if n < 2:
        return float("nan"), float("nan")
    from scipy.stats import t  # takes a second to import

    reach = float(t.ppf((1 + CONFIDENCE) / 2, df=n - 1)) ** 2 * (1 / n + test_over_train)
    (spread, shared), (_, base) = np.cov(first, second) * reach
    mean, other = float(first.mean()), float(second.mean())
    square, product = other**2 - base, mean * other - shared
    if square <= 0:
        return float("nan"), float("nan")
    root = max(product**2 - square * (mean**2 - spread), 0.0) ** 0.5
    return float((product - root) / square) - 1, float((product + root) / square) - 1
