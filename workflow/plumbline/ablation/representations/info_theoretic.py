"""Entropy of the histogram of the entries."""

import numpy as np

from plumbline.ablation.linalg.histogram import histograms
from plumbline.ablation.linalg.moments import entries
from plumbline.ablation.representations.interface import representation

BINS = 50


@representation(width=2)
def info_theoretic(stack: np.ndarray) -> np.ndarray:
    """Entropy in nats of a histogram of 50 equal bins on [min, max], and the same over ln 50.

    (R, m, n) -> (R, 2). A constant matrix has 0. Counts are not continuous: an entry within rounding of a bin's edge
    may fall on either side, which changes the entropy by about ln(k)/k for k entries.
    """
    rows = entries(stack)
    shares = histograms(rows, BINS) / rows.shape[-1]
    entropy = -np.vecdot(shares, np.log(np.where(shares > 0, shares, 1)))
    return np.stack([entropy, entropy / np.log(BINS)], axis=-1)
