"""Magnitudes of two-dimensional Fourier transforms of real matrices, from the half that real symmetry leaves."""

from typing import NamedTuple

import numpy as np
import scipy.fft

from plumbline.ablation.linalg.moments import ratio, total
from plumbline.ablation.linalg.order_statistics import largest


class Magnitudes(NamedTuple):
    """Of all |fft2(W)|: the `top` (R, count) falling, mean, mean of squares, and standard deviation, each (R,)."""

    top: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    sd: np.ndarray


def magnitudes(stack: np.ndarray, count: int) -> Magnitudes:
    """Summary of |fft2| of each matrix of `stack` (R, m, n); float32 stays float32 in the transform."""
    return summarize_half(half_magnitudes(stack), stack.shape[-1] if stack.shape[-1] > 1 else stack.shape[-2], count)


def half_magnitudes(stack: np.ndarray) -> np.ndarray:
    """|fft2| at the n // 2 + 1 column frequencies that determine the others, (R, m, n // 2 + 1).

    A column (m × 1) is taken as a row: the transform of the transpose has the same magnitudes.
    """
    if stack.shape[-1] == 1:
        stack = stack.mT
    if stack.shape[-2] == 1:
        return np.abs(scipy.fft.rfft(stack, axis=-1))
    return np.abs(scipy.fft.rfft2(stack))


def summarize_half(half: np.ndarray, n: int, count: int) -> Magnitudes:
    """Summary of all magnitudes from the half (R, m, n // 2 + 1) of a real transform of n columns; destroys `half`.

    Column frequency 0, and n/2 for even n, stand for themselves; each of the others stands for two.
    """
    (rows, m, columns), alone = half.shape, [0, n // 2] if n % 2 == 0 else [0]
    peak = half.max(axis=(1, 2))
    # In units of the largest, squares stay in the range of float32 whatever the size of the weights.
    half *= ratio(np.ones(1), peak).astype(half.dtype)[:, None, None]
    single = np.ascontiguousarray(half[:, :, alone]).reshape(rows, -1)
    double = np.ascontiguousarray(half[:, :, 1 : columns - (n % 2 == 0)]).reshape(rows, -1)
    mean = (total(single) + 2.0 * total(double)) / (m * n)
    square = (np.vecdot(single, single) + 2.0 * np.vecdot(double, double)) / (m * n)
    variance = (_spread(single, mean) + 2.0 * _spread(double, mean)) / (m * n)
    twice = np.repeat(largest(double, (count + 1) // 2), 2, axis=-1)
    top = largest(np.concatenate([largest(single, count), twice], axis=-1), count).astype(np.float64)
    unit = peak.astype(np.float64)
    return Magnitudes(top * unit[:, None], mean * unit, square * unit**2, np.sqrt(variance) * unit)


def _spread(values: np.ndarray, centre: np.ndarray) -> np.ndarray:
    deviation = values - centre[:, None].astype(values.dtype)
    return np.vecdot(deviation, deviation)
