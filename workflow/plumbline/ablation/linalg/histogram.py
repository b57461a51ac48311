"""Equal-width histograms of rows of values."""

import numpy as np

from plumbline.ablation.linalg.blocks import in_blocks
from plumbline.ablation.linalg.order_statistics import extremes

EDGE = 1 + 2.0**-50
"""Lifts what lies exactly on an edge, as values on a lattice do, over the rounding of the division, to its own bin."""


def histograms(rows: np.ndarray, bins: int) -> np.ndarray:
    """Counts (R, bins), int64, of each row (R, k) over `bins` equal bins on [min, max], max in the last bin.

    Bin of x: floor(bins · (x − min) / (max − min)). A row whose range is below 1e-12 of its largest magnitude is
    constant but for rounding: all of it is in the first bin.
    """
    return in_blocks(lambda block: _histograms(block, bins), rows)


def _histograms(rows: np.ndarray, bins: int) -> np.ndarray:
    low, high = (each.astype(np.float64) for each in extremes(rows))
    width = high - low
    constant = width <= 1e-12 * np.maximum(np.abs(low), np.abs(high))
    position = rows.astype(np.float64)
    position -= low[:, None]
    position *= (bins * EDGE / np.where(constant, np.inf, width))[:, None]
    # By way of int32: AVX-512 has no fast way from float64 to int64, and the sum takes half the time.
    index = position.astype(np.int32)
    # One bin more than asked for: what is exactly at max falls there, and is added to the last one.
    index += np.arange(0, len(rows) * (bins + 1), bins + 1, dtype=np.int32)[:, None]
    counts = np.bincount(index.astype(np.intp).ravel(), minlength=len(rows) * (bins + 1)).reshape(-1, bins + 1)
    counts[:, bins - 1] += counts[:, bins]
    return counts[:, :bins]
