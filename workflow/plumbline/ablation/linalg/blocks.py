"""Work on a few rows at a time."""

from collections.abc import Callable

import numpy as np

CACHED_VALUES = 3 << 16
"""Values worked on at a time: so many that a call costs little beside them, so few that they stay in cache."""
BUFFER = 256
"""Values in numpy's buffer. In the usual one of 8192 it writes out what is one value a row, such as a mean, once for
every value of the row, which takes longer than the subtraction."""


def in_blocks(kernel: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """kernel(rows), where each row's result depends on the row alone: blocks of rows that stay in cache, joined."""
    step = max(1, CACHED_VALUES // max(1, rows[:1].size))
    with np.errstate():  # which puts the buffer back, too
        np.setbufsize(BUFFER)
        return np.concatenate([kernel(rows[start : start + step]) for start in range(0, max(1, len(rows)), step)])


def in_factor_blocks(
    kernel: Callable[[np.ndarray, np.ndarray], np.ndarray], up: np.ndarray, down: np.ndarray
) -> np.ndarray:
    """kernel(up, down) of the factors `up` (R, m, r) and `down` (R, r, n) of a few products at a time, joined."""
    step = max(1, CACHED_VALUES // max(1, up[:1].size + down[:1].size))
    blocks = (slice(start, start + step) for start in range(0, max(1, len(up)), step))
    return np.concatenate([kernel(up[rows], down[rows]) for rows in blocks])


def in_range(kernel: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """kernel(rows) in blocks and the unit (R,) of each row in which it was computed; column 2 must be a variance.

    The unit is 1, save for rows whose fourth powers leave the range of float32: theirs is the largest magnitude.
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
