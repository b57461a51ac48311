"""Tests of differences and of a mean against a level, and their correction for being many."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.samples import Array, paired

ALPHA = 0.05


def clustered_above_p(samples: ArrayLike, groups: ArrayLike, level: float) -> float:
    """One-sided p-value of the hypothesis that the mean of `samples` (n,) is at most `level`.

    Samples of one of `groups` (n,) may depend on each other: a t-test with the cluster-robust variance, that of the
    groups' summed deviations, and as many degrees of freedom as groups but one (Liang & Zeger 1986, Biometrika 73;
    Cameron & Miller 2015, J. Human Resources 50). Samples that do not vary give 0 or 1, a single group NaN.
    """
    _, group_of_sample = np.unique(np.asarray(groups), return_inverse=True)
    values, _ = paired(samples, group_of_sample)
    count = int(group_of_sample.max()) + 1
    if count < 2:
        return float("nan")
    mean = float(values.mean())
    sums = np.bincount(group_of_sample, weights=values - mean)
    error = float(np.sqrt(count / (count - 1) * (sums**2).sum())) / len(values)
    if error <= 1e-12 * abs(mean):
        return 0.0 if mean > level else 1.0
    from scipy.stats import t  # takes a second to import

    return float(t.sf((mean - level) / error, df=count - 1))


def holm(p_values: Sequence[float] | Array) -> Array:
    """Holm's step-down correction of one family of p-values, in their order (Holm 1979, Scand. J. Stat. 6).

    A NaN is a test that could not be made: it stays NaN and does not count in the family.
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected
