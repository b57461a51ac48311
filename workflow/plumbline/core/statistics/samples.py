"""Samples as every statistic takes them: finite numbers, ties where rounding would hide them, ranks."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

DIGITS = 12
"""Values equal to this many decimals are ties: 0.9 - 0.85 and 0.85 - 0.8 are."""


def finite(samples: ArrayLike) -> Array:
    """`samples` (..., n) as float64. Raises ValueError when there is no sample or a value is not finite."""
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError("a statistic needs at least one sample")
    if not np.isfinite(values).all():
        raise ValueError("a statistic needs finite samples")
    return values


def paired(first: ArrayLike, second: ArrayLike) -> tuple[Array, Array]:
    """Two finite series (n,) that belong together by position. Raises ValueError for unequal lengths."""
    one, two = finite(first), finite(second)
    if one.ndim != 1 or one.shape != two.shape:
        raise ValueError(f"pairs need two series of one length, got shapes {one.shape} and {two.shape}")
    return one, two


def rounded(samples: ArrayLike) -> Array:
    """Finite samples rounded to DIGITS decimals, so that equal ones compare equal."""
    return np.asarray(np.round(finite(samples), DIGITS))


def midranks(values: Array) -> Array:
    """Ranks (n,) from 1; tied values share the mean of their ranks."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[index])
