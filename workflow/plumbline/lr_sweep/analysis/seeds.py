"""What may be said of the spread over seeds: an interval needs a few of them, two or three have a range."""

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.bootstrap import bootstrap_interval

LEAST = 5
"""Seeds of an interval: the bootstrap of fewer is hardly more than their range."""


def has_interval(seeds: int) -> bool:
    """Whether so many seeds allow an interval."""
    return seeds >= LEAST


def spread(losses: ArrayLike, *, interval: bool) -> tuple[float, float]:
    """Ends of the bootstrap 95% interval of the mean of losses (S,), or their least and largest; NaN for one."""
    values = np.asarray(losses, dtype=np.float64)
    if interval or values.size < 2:
        low, high = bootstrap_interval(values)
        return float(low), float(high)
    return float(values.min()), float(values.max())


def spread_name(*, interval: bool) -> str:
    """What `spread` gives, in words."""
    return "95% interval" if interval else "range of the seeds"
