"""Paired contrasts: one series against another, run by run."""

from dataclasses import dataclass

from numpy.typing import ArrayLike

from plumbline.core.statistics.effect_sizes import cohens_dz, rank_biserial
from plumbline.core.statistics.resampled import corrected_mean
from plumbline.core.statistics.samples import paired, rounded


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
    The interval of the relative difference is that of the ratio of means to first order (the delta method). It is NaN
    when the baseline's mean is zero; d_z is infinite when all differences are the same and not zero. Raises ValueError
    for unequal lengths.
    """
    first, second = paired(sample, baseline)
    differences = rounded(first - second)
    found = corrected_mean(differences, test_over_train=test_over_train)
    relative = relative_low = relative_high = float("nan")
    if second.mean():
        ratio = first.mean() / second.mean()
        linear = corrected_mean(ratio - 1 + (first - ratio * second) / second.mean(), test_over_train=test_over_train)
        relative, relative_low, relative_high = linear.mean, linear.low, linear.high
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
