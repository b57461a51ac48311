"""Magnitudes of two-dimensional Fourier transforms of real matrices, from the non-redundant half."""

from typing import NamedTuple

import numpy as np
import scipy.fft

from plumbline.ablation.linalg.blocks import in_range
from plumbline.ablation.linalg.moments import total
from plumbline.ablation.linalg.order_statistics import largest


class Magnitudes(NamedTuple):
    """Of all |fft2(W)|: the largest (`top`, (R, count), falling), mean, mean square and standard deviation, (R,)."""

    top: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    sd: np.ndarray


def magnitudes(stack: np.ndarray, count: int) -> Magnitudes:
    """Summary of |fft2| of each matrix of `stack` (R, m, n); float32 stays float32 in the transform.

    A column (m × 1) is treated as a row: the transform of the transpose has the same magnitudes.
    """
    rows = stack.mT if stack.shape[-1] == 1 else stack
    n = rows.shape[-1]
    found, unit = in_range(lambda block: _half_summary(_half_magnitudes(block), n, count), rows)
    return _of_all(found, unit, count)


def summarize_half(half: np.ndarray, n: int, count: int) -> Magnitudes:
    """Summary of all magnitudes, from the half (R, m, n // 2 + 1) of a real transform with n columns."""
    return _of_all(_half_summary(half, n, count), np.ones(len(half)), count)


def _half_magnitudes(stack: np.ndarray) -> np.ndarray:
    return np.abs(scipy.fft.rfft(stack, axis=-1) if stack.shape[-2] == 1 else scipy.fft.rfft2(stack))


def _half_summary(half: np.ndarray, n: int, count: int) -> np.ndarray:
    """Mean, mean square and variance of all magnitudes, the largest that occur twice, the largest that occur once.

    Column frequency 0, and n/2 for even n, occur once; by symmetry each of the others occurs twice.
    """
    rows, m, columns = half.shape
    alone = slice(0, columns, columns - 1) if n % 2 == 0 and n > 1 else slice(0, 1)
    single, every = half[:, :, alone].reshape(rows, -1), half.reshape(rows, -1)
    twice = (count + 1) // 2
    found = np.empty((rows, 3 + twice + count))
    found[:, 0] = mean = (2 * total(every) - total(single)) / (m * n)
    found[:, 1] = (2 * np.vecdot(every, every) - np.vecdot(single, single)) / (m * n)
    found[:, 2] = (2 * _spread(every, mean) - _spread(single, mean)) / (m * n)
    found[:, 3 + twice :] = largest(single, count)
    half[:, :, alone] = 0
    found[:, 3 : 3 + twice] = largest(every, twice)
    return found


def _of_all(found: np.ndarray, unit: np.ndarray, count: int) -> Magnitudes:
    twice = (count + 1) // 2
    candidates = np.concatenate([np.repeat(found[:, 3 : 3 + twice], 2, axis=-1), found[:, 3 + twice :]], axis=-1)
    top = largest(candidates, count)
    return Magnitudes(top * unit[:, None], found[:, 0] * unit, found[:, 1] * unit**2, np.sqrt(found[:, 2]) * unit)


def _spread(values: np.ndarray, centre: np.ndarray) -> np.ndarray:
    deviation = values - centre[:, None].astype(values.dtype)
    return np.vecdot(deviation, deviation)
