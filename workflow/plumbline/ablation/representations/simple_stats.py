"""Size, centre and extremes of the entries."""

import numpy as np

from plumbline.ablation.linalg.moments import entries, mean_and_sd, product_mean, product_sd
from plumbline.ablation.linalg.order_statistics import extremes, outer_extremes
from plumbline.ablation.linalg.spectrum import product_singular_values
from plumbline.ablation.representations.interface import dense_route, representation


@representation(width=5)
def simple_stats(stack: np.ndarray) -> np.ndarray:
    """Frobenius norm, mean, standard deviation, largest and smallest entry; (R, m, n) -> (R, 5)."""
    rows = entries(stack)
    mean, sd = mean_and_sd(rows)
    low, high = extremes(rows)
    return _features(np.sqrt(rows.shape[-1]) * np.hypot(mean, sd), mean, sd, high, low)


@simple_stats.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    sigma = product_singular_values(up, down)
    mean = product_mean(up, down)
    sd = product_sd(up, down, mean)
    if up.shape[-1] == 1:
        high, low = outer_extremes(up[..., 0], down[:, 0])
    else:
        high, low = dense_route(_extremes, up, down).T
    return _features(np.sqrt(np.vecdot(sigma, sigma)), mean, sd, high, low)


def _extremes(stack: np.ndarray) -> np.ndarray:
    low, high = extremes(entries(stack))
    return np.stack([high, low], axis=-1)


def _features(*columns: np.ndarray) -> np.ndarray:
    return np.stack(columns, axis=-1)
