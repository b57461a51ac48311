"""Tests of paired differences and their correction for being many."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.samples import Array, midranks, rounded

ALPHA = 0.05


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test; zero differences are dropped, all zero gives 1.

    Exact for any number of pairs and with ties: the null distribution of the rank sum given the midranks is
    built up pair by pair (scipy enumerates all 2^n signs where there are ties, 300 ms for ten pairs).
    """
    values = rounded(differences)
    values = values[values != 0]
    doubled = np.rint(2 * midranks(np.abs(values))).astype(np.intp)  # midranks are halves of integers
    null = np.ones(1)
    for rank in doubled:
        null = np.pad(null, (0, rank)) / 2 + np.pad(null, (rank, 0)) / 2
    positive = int(doubled[values > 0].sum())
    least = min(positive, len(null) - 1 - positive)
    return min(1.0, 2 * float(null[: least + 1].sum()))


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
