"""The first four moments, the median and the extremes of the entries."""

import numpy as np

from plumbline.ablation.linalg.moments import Moments, entries, moments, product_moments
from plumbline.ablation.linalg.order_statistics import median_and_extremes
from plumbline.ablation.representations.interface import dense_route, representation


@representation(width=7)
def stats(stack: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, median, smallest, largest entry, skewness, kurtosis (3 for a Gaussian).

    (R, m, n) -> (R, 7). Skewness and kurtosis of a constant matrix are 0.
    """
    return _features(moments(entries(stack)), _middle_and_extremes(stack))


@stats.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    return _features(product_moments(up, down), dense_route(_middle_and_extremes, up, down))


def _middle_and_extremes(stack: np.ndarray) -> np.ndarray:
    return median_and_extremes(entries(stack))


def _features(of: Moments, middle: np.ndarray) -> np.ndarray:
    return np.stack([of.mean, of.sd, *middle.T, of.skewness, of.kurtosis], axis=-1)
