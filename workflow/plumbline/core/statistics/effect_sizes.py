"""How large a difference is, on scales that compare across measures."""

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.samples import midranks, rounded


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation in [-1, 1]: positive share of the rank sum minus the negative.

    Kerby 2014, "The simple difference formula". Zero differences are dropped; all zero gives 0.
    """
    values = rounded(differences)
    values = values[values != 0]
    if not values.size:
        return 0.0
    ranks = midranks(np.abs(values))
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def cohens_dz(differences: ArrayLike) -> float:
    """Mean over standard deviation (n - 1) of the differences (Cohen 1988, section 2.3.5).

    All zero gives 0, all equal and not zero an infinity of their sign, a single pair NaN.
    """
    values = rounded(differences)
    if values.size < 2:
        return float("nan")
    if np.ptp(values) == 0:
        return float(np.sign(values[0]) * np.inf) if values[0] else 0.0
    return float(values.mean() / values.std(ddof=1))


def cliffs_delta(first: ArrayLike, second: ArrayLike) -> float:
    """Cliff's δ in [-1, 1] of unpaired samples (n,) and (m,): how often a value of `first` is above one of `second`,
    minus how often it is below, over all n × m pairs (Cliff 1993, Psychological Bulletin 114).
    """
    ours, theirs = rounded(first), np.sort(rounded(second))
    below = np.searchsorted(theirs, ours, side="left")
    not_above = np.searchsorted(theirs, ours, side="right")
    return float((below + not_above - len(theirs)).mean() / len(theirs))
