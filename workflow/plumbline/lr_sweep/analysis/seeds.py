"""The spread over seeds: a bootstrap interval where there are enough seeds for one, otherwise their range."""

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.bootstrap import bootstrap_interval

MIN_SEEDS = 5
"""Number of seeds from which on there is an interval: with fewer, a bootstrap is hardly more than their range."""


def has_interval(seeds: int) -> bool:
    """Whether that many seeds are enough for an interval."""
    return seeds >= MIN_SEEDS


def spread(losses: ArrayLike, *, interval: bool) -> tuple[float, float]:
    """Ends of the bootstrap 95% interval of the mean of losses (S,), or their minimum and maximum; NaN for one loss."""
    values = np.asarray(losses, dtype=np.float64)
    if interval or values.size < 2:
        low, high = bootstrap_interval(values)
        return float(low), float(high)
    return float(values.min()), float(values.max())


def spread_name(*, interval: bool) -> str:
    """The name of what `spread` returns."""
    return "95% interval" if interval else "range of the seeds"
