"""Applies functions to blocks of rows that stay in cache."""

from collections.abc import Callable

import numpy as np

CACHED_VALUES = 3 << 16
"""Number of values processed at a time: enough to amortise a call, few enough to stay in cache."""
BUFFER = 256
"""Size of numpy's buffer. With the default of 8192, broadcasting one value per row (such as a mean) copies it for
every entry of the row, which takes longer than the subtraction itself."""


def in_blocks(kernel: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """kernel(rows), computed in blocks that stay in cache. The result of a row must depend on that row alone."""
    step = max(1, CACHED_VALUES // max(1, rows[:1].size))
    with np.errstate():  # also restores the buffer size
        np.setbufsize(BUFFER)
        return np.concatenate([kernel(rows[start : start + step]) for start in range(0, max(1, len(rows)), step)])


def in_factor_blocks(
    kernel: Callable[[np.ndarray, np.ndarray], np.ndarray], up: np.ndarray, down: np.ndarray
) -> np.ndarray:
    """kernel(up, down), computed in blocks, for the factors `up` (R, m, r) and `down` (R, r, n)."""
    step = max(1, CACHED_VALUES // max(1, up[:1].size + down[:1].size))
    blocks = (slice(start, start + step) for start in range(0, max(1, len(up)), step))
    return np.concatenate([kernel(up[rows], down[rows]) for rows in blocks])


def in_range(kernel: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """kernel(rows), computed in blocks, and the unit (R,) each row was divided by; column 2 must be a variance.

    The unit is 1, except in rows whose fourth powers leave the range of float32: there it is the largest magnitude.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = in_blocks(kernel, rows)
    unit = np.ones(len(rows))
    extreme = np.flatnonzero(~((found[:, 2] > 1e-16) & (found[:, 2] < 1e16)))
    if len(extreme):
        size = np.abs(rows[extreme].reshape(len(extreme), -1)).max(axis=-1)
        size[size == 0] = 1
        scaled = rows[extreme] / size.reshape(-1, *[1] * (rows.ndim - 1))
        found[extreme], unit[extreme] = in_blocks(kernel, scaled), size
    return found, unit
