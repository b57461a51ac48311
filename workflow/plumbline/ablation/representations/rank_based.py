"""Percentiles of the entries."""

import numpy as np

from plumbline.ablation.linalg.moments import entries
from plumbline.ablation.linalg.order_statistics import quantiles
from plumbline.ablation.representations.interface import representation

LEVELS = np.array([1, 5, 10, 25, 50, 75, 90, 95, 99]) / 100


@representation(width=11)
def rank_based(stack: np.ndarray) -> np.ndarray:
    """Percentiles 1 5 10 25 50 75 90 95 99, interquartile range, p99 − p1; (R, m, n) -> (R, 11)."""
    p = quantiles(entries(stack), LEVELS)
    return np.concatenate([p, p[:, 5:6] - p[:, 3:4], p[:, 8:9] - p[:, 0:1]], axis=-1)
