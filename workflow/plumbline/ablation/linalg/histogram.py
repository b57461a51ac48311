"""Equal-width histograms of rows of values."""

import numpy as np

from plumbline.ablation.linalg.blocks import in_blocks
from plumbline.ablation.linalg.order_statistics import extremes

EDGE = 1 + 2.0**-50
"""Compensates the rounding of the division, so that a value exactly on an edge falls into the upper bin."""


def histograms(rows: np.ndarray, bins: int) -> np.ndarray:
    """Counts (R, bins), int64, of each row (R, k) over `bins` equal bins on [min, max], max in the last bin.

    Bin of x: floor(bins · (x − min) / (max − min)). A row whose range is below 1e-12 of its largest magnitude is
    constant up to rounding: all of it is in the first bin.
    """
    return in_blocks(lambda block: _histograms(block, bins), rows)


def _histograms(rows: np.ndarray, bins: int) -> np.ndarray:
    low, high = (each.astype(np.float64) for each in extremes(rows))
    width = high - low
    constant = width <= 1e-12 * np.maximum(np.abs(low), np.abs(high))
    position = rows.astype(np.float64)
    position -= low[:, None]
    position *= (bins * EDGE / np.where(constant, np.inf, width))[:, None]
    # Through int32: AVX-512 has no fast conversion from float64 to int64, and the sum takes half the time.
    index = position.astype(np.int32)
    # One extra bin: values equal to max fall there, and are added to the last one.
    index += np.arange(0, len(rows) * (bins + 1), bins + 1, dtype=np.int32)[:, None]
    counts = np.bincount(index.astype(np.intp).ravel(), minlength=len(rows) * (bins + 1)).reshape(-1, bins + 1)
    counts[:, bins - 1] += counts[:, bins]
    return counts[:, :bins]
