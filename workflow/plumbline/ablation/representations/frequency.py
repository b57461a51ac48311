"""Magnitudes of the two-dimensional Fourier transform."""

import numpy as np
import scipy.fft

from plumbline.ablation.linalg.fourier import Magnitudes, magnitudes, summarize_half
from plumbline.ablation.linalg.moments import ratio
from plumbline.ablation.linalg.order_statistics import largest
from plumbline.ablation.representations.interface import BLOCK_VALUES, representation

TOP = 10


@representation(width=14)
def frequency(stack: np.ndarray) -> np.ndarray:
    """Of |fft2|: top ten (zero-padded), mean, standard deviation, largest, share of energy in the top ten.

    (R, m, n) -> (R, 14). Energy is Σ|fft2|². A zero matrix gives zeros.
    """
    return _features(magnitudes(stack, TOP), stack.shape[-2] * stack.shape[-1])


@frequency.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    size = up.shape[-2] * down.shape[-1]
    if up.shape[-1] == 1:
        return _features(_outer(magnitudes(up, TOP), magnitudes(down, TOP)), size)
    step = max(1, BLOCK_VALUES // size)
    blocks = (slice(start, start + step) for start in range(0, len(up), step))
    return np.concatenate([_features(_from_factors(up[rows], down[rows]), size) for rows in blocks])


def _from_factors(up: np.ndarray, down: np.ndarray) -> Magnitudes:
    """fft2(up · down) = (F up)(down F), half of which suffices because `down` is real."""
    half = np.matmul(scipy.fft.fft(up, axis=-2), scipy.fft.rfft(down, axis=-1))
    return summarize_half(np.abs(half), down.shape[-1], TOP)


def _outer(up: Magnitudes, down: Magnitudes) -> Magnitudes:
    """At rank 1 every magnitude is a product of one from each factor, so the top ten are products of top tens."""
    products = (up.top[:, :, None] * down.top[:, None, :]).reshape(len(up.top), -1)
    variance = up.square * down.sd**2 + up.sd**2 * down.mean**2
    return Magnitudes(largest(products, TOP), up.mean * down.mean, up.square * down.square, np.sqrt(variance))


def _features(of: Magnitudes, size: int) -> np.ndarray:
    share = ratio(np.vecdot(of.top, of.top), of.square * size)
    return np.concatenate([of.top, np.stack([of.mean, of.sd, of.top[:, 0], share], axis=-1)], axis=-1)
