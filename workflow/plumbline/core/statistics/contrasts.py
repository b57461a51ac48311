"""Paired contrasts: one series against another, run by run."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.bootstrap import RESAMPLES, bootstrap_interval, ratio_interval
from plumbline.core.statistics.effect_sizes import cohens_dz, rank_biserial
from plumbline.core.statistics.hypothesis_tests import wilcoxon_p
from plumbline.core.statistics.samples import paired, rounded


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A paired comparison of `sample` with `baseline`, run by run. Positive: the sample is higher.

    `difference` is the mean difference with its interval `low`, `high`; `relative` the ratio of the means
    minus one with its interval. `p_value` is the two-sided Wilcoxon signed-rank test, `p_floor` the least
    p-value that so many pairs can give at all. Effect sizes: matched-pairs rank-biserial correlation and Cohen's d_z.
    """

    pairs: int
    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    p_value: float
    p_floor: float
    rank_biserial: float
    cohens_dz: float


def paired_contrast(sample: ArrayLike, baseline: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Contrast:
    """Compares two series of equal length, paired by position. Raises ValueError for unequal lengths.

    The pairs are resampled, never the two series separately. The relative difference is NaN when the baseline's
    mean is zero; d_z is infinite when all differences are the same and not zero.
    """
    first, second = paired(sample, baseline)
    differences = rounded(first - second)
    low, high = bootstrap_interval(differences, seed=seed, resamples=resamples)
    relative_low, relative_high = ratio_interval(first, second, seed=seed, resamples=resamples)
    return Contrast(
        pairs=len(differences),
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        relative=float(first.mean() / second.mean() - 1) if second.mean() else np.nan,
        relative_low=relative_low - 1,
        relative_high=relative_high - 1,
        p_value=wilcoxon_p(differences),
        p_floor=min(1.0, 2.0 ** (1 - len(differences))),
        rank_biserial=rank_biserial(differences),
        cohens_dz=cohens_dz(differences),
    )
