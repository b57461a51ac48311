"""The shape of the distribution of the entries."""

import numpy as np

from plumbline.ablation.linalg.moments import Moments, entries, moments_and_deviation, product_moments, ratio, total
from plumbline.ablation.linalg.order_statistics import quantiles
from plumbline.ablation.representations.interface import dense_route, representation

LEVELS = np.array([0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95])


@representation(width=12)
def distribution(stack: np.ndarray) -> np.ndarray:
    """Quantiles .05 .10 .25 .50 .75 .90 .95, interquartile range, mean absolute deviation, sd/|mean|,
    skewness, kurtosis (3 for a Gaussian).

    (R, m, n) -> (R, 12). Deviations are from the mean. sd/|mean| is 0 where the mean is 0.
    """
    rows = entries(stack)
    of, deviation = moments_and_deviation(rows)
    return _features(of, _quantiles(rows), deviation)


@distribution.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    dense = dense_route(_quantiles_and_deviation, up, down)
    return _features(product_moments(up, down), dense[:, :-1], dense[:, -1])


def _quantiles_and_deviation(stack: np.ndarray) -> np.ndarray:
    rows = entries(stack)
    centre = total(rows)[:, None] / rows.shape[-1]
    deviation = total(np.abs(rows - centre)) / rows.shape[-1]
    return np.concatenate([_quantiles(rows), deviation[:, None]], axis=-1)


def _quantiles(rows: np.ndarray) -> np.ndarray:
    return quantiles(rows, LEVELS)


def _features(of: Moments, q: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    rest = [q[:, 4] - q[:, 2], deviation, ratio(of.sd, np.abs(of.mean)), of.skewness, of.kurtosis]
    return np.concatenate([q, np.stack(rest, axis=-1)], axis=-1)
