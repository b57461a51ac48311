"""Sorted entries, quantiles and extremes of rows of values."""

import numpy as np

PIVOT = 1024
"""Up to so many float32 values numpy sorts a row on AVX-512 faster than it finds the median alone."""


LONG = 1 << 14
"""Beyond so many values selecting a few order statistics is faster than sorting all: 22 against 68 ns a float64."""


def quantiles(rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles (R, levels) in float64 of the rows (R, k), interpolated linearly as np.quantile does."""
    k = rows.shape[-1]
    position = levels * (k - 1)
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, k - 1)
    ordered = np.partition(rows, np.union1d(below, above), axis=-1) if k > LONG else np.sort(rows, axis=-1)
    low = ordered[:, below].astype(np.float64)
    return low + (ordered[:, above] - low) * (position - below)


def medians(rows: np.ndarray) -> np.ndarray:
    """Median (R,) in float64 of each row (R, k)."""
    k = rows.shape[-1]
    if k <= PIVOT:
        middle = np.sort(rows, axis=-1)[:, [(k - 1) // 2, k // 2]].astype(np.float64)
        return (middle[:, 0] + middle[:, 1]) / 2
    # One pivot at a time: with several numpy leaves its vectorised path (12 ns a value more).
    parted = np.partition(rows, k // 2, axis=-1)
    upper = parted[:, k // 2].astype(np.float64)
    return upper if k % 2 else (parted[:, : k // 2].max(axis=-1) + upper) / 2


def largest(rows: np.ndarray, count: int) -> np.ndarray:
    """The `count` largest of each row (R, k), falling, zero-padded when k < count; for values ≥ 0.

    Destroys `rows` when k is large: picking one maximum after another is the fastest way there.
    """
    k = rows.shape[-1]
    top = np.zeros((len(rows), count), rows.dtype)
    if k <= 8 * count:
        kept = min(k, count)
        top[:, :kept] = np.sort(rows, axis=-1)[:, : k - kept - 1 if k > kept else None : -1]
        return top
    each = np.arange(len(rows))
    for i in range(count):
        where = rows.argmax(axis=-1)
        top[:, i] = rows[each, where]
        rows[each, where] = -1.0
    return top


def outer_extremes(up: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest entry (R,) of rank-1 products, `up` (R, m) and `down` (R, n): products of extremes."""
    ups = np.stack([up.max(axis=-1), up.min(axis=-1)], axis=-1)
    downs = np.stack([down.max(axis=-1), down.min(axis=-1)], axis=-1)
    corners = (ups[:, :, None] * downs[:, None, :]).reshape(-1, 4)
    return corners.max(axis=-1), corners.min(axis=-1)
