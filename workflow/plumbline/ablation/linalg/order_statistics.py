"""Quantiles and extremes of rows of values."""

import numpy as np

from plumbline.ablation.linalg.blocks import in_blocks

NETWORK = 512
"""Up to so many float32 values numpy sorts a row by a network on AVX-512, at 1.1 to 2 ns a value; beyond, at 4 to 7."""
RUN = 256
"""Length of the runs that longer rows are sorted in: the cheapest of the networks."""
DEALT = 5 * RUN
"""Beyond so many values the windows of `_dealt` hold too much of the row."""
LONG = 1 << 14
"""Beyond so many values selecting a few order statistics is faster than sorting all: 22 against 68 ns a float64."""


def quantiles(rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles (R, levels) in float64 of the rows (R, k), interpolated linearly as np.quantile does."""
    k = rows.shape[-1]
    position = levels * (k - 1)
    below = np.floor(position).astype(np.intp)
    around = np.minimum(below[:, None] + np.arange(2), k - 1)
    if NETWORK < k <= DEALT:
        hands = -(-k // RUN)
        starts = np.clip(below // hands + 1 - hands, 0, RUN - 2 * hands)
        found = in_blocks(lambda block: _dealt(block, hands, starts, around), rows)
    else:
        found = in_blocks(lambda block: _ordered(block, around)[:, around], rows)
    low, high = found[..., 0].astype(np.float64), found[..., 1].astype(np.float64)
    return low + (high - low) * (position - below)


def _ordered(rows: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    return np.partition(rows, np.unique(ranks), axis=-1) if rows.shape[-1] > LONG else np.sort(rows, axis=-1)


def _dealt(rows: np.ndarray, hands: int, starts: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The values (R, levels, 2) that stand at the `ranks` (levels, 2), t and t + 1, of each row once sorted.

    The first steps of columnsort (Leighton 1985): sort s runs, deal each out like cards into s hands, sort those.
    Of any sorted run a hand holds every s-th value. So the values up to any given one are spread over the hands
    evenly but for s − 1, and those of ranks t and t + 1 are in every hand among the 2s values from place
    ⌊t/s⌋ + 1 − s on, its start, whatever the values are. Those windows are sorted once more.
    """
    count, k = rows.shape
    runs = np.full((count, hands, RUN), np.inf, rows.dtype)
    runs.reshape(count, -1)[:, :k] = rows
    runs.sort(axis=-1)
    dealt = np.ascontiguousarray(runs.reshape(count, RUN, hands).mT)
    dealt.sort(axis=-1)
    windows = np.empty((count, len(starts), hands, 2 * hands), rows.dtype)
    for level, start in enumerate(starts):
        windows[:, level] = dealt[:, :, start : start + 2 * hands]
    windows = windows.reshape(count, len(starts), -1)
    windows.sort(axis=-1)
    return windows[:, np.arange(len(starts))[:, None], ranks - hands * starts[:, None]]


def median_and_extremes(rows: np.ndarray) -> np.ndarray:
    """Median, smallest and largest value (R, 3) in float64 of each row (R, k)."""
    k = rows.shape[-1]
    if k <= LONG:
        return quantiles(rows, np.array([0.5, 0.0, 1.0]))
    # One pivot at a time: with several numpy leaves its vectorised path (12 ns a value more).
    parted = np.partition(rows, k // 2, axis=-1)
    upper = parted[:, k // 2].astype(np.float64)
    middle = upper if k % 2 else (parted[:, : k // 2].max(axis=-1) + upper) / 2
    return np.stack([middle, rows.min(axis=-1), rows.max(axis=-1)], axis=-1)


def extremes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value (R,) of each row; `argmin` takes half the time of `min` on rows of a few hundred."""
    each = np.arange(len(rows))
    return rows[each, rows.argmin(axis=-1)], rows[each, rows.argmax(axis=-1)]


def largest(rows: np.ndarray, count: int) -> np.ndarray:
    """The `count` largest of each row (R, k), falling, zero-padded when k < count; for values ≥ 0.

    Destroys `rows` when k is large: picking one maximum after another is the fastest way there.
    """
    k = rows.shape[-1]
    top = np.zeros((len(rows), count), rows.dtype)
    if k <= max(8 * count, RUN):
        kept = min(k, count)
        top[:, :kept] = np.sort(rows, axis=-1)[:, : k - kept - 1 if k > kept else None : -1]
        return top
    each = np.arange(len(rows))
    for i in range(count):
        where = rows.argmax(axis=-1)
        top[:, i] = rows[each, where]
        rows[each, where] = -1.0
    return top


def outer_extremes(up: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest entry (R,) of rank-1 products, `up` (R, m) and `down` (R, n): products of extremes."""
    ups = np.stack([up.max(axis=-1), up.min(axis=-1)], axis=-1)
    downs = np.stack([down.max(axis=-1), down.min(axis=-1)], axis=-1)
    corners = (ups[:, :, None] * downs[:, None, :]).reshape(-1, 4)
    return corners.max(axis=-1), corners.min(axis=-1)
