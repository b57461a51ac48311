"""Quantiles and extremes of rows of values."""

from collections.abc import Callable

import numpy as np

from plumbline.ablation.linalg.blocks import in_blocks

NETWORK = 512
"""Up to this many int32, numpy sorts a row with an AVX-512 network at 0.8 to 1.3 ns per value; above, at 4 to 7 ns."""
RUN = 256
"""Length of the runs that longer rows are sorted in: this and half of it are the cheapest networks."""
DEALT = 5 * RUN
"""Above this many values, `_by_dealing` would sort too many of them a third time."""
LONG = 1 << 14
"""Above this many values, selecting a few order statistics is faster than sorting: 22 against 68 ns per float64."""


def quantiles(rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles (R, levels) in float64 of the rows (R, k), interpolated linearly as np.quantile does."""
    k = rows.shape[-1]
    position = levels * (k - 1)
    below = np.floor(position).astype(np.intp)
    around = np.minimum(below[:, None] + np.arange(2), k - 1)
    select = _by_dealing(k, around) if NETWORK < k <= DEALT else _by_order(k, around)
    keys = in_blocks(lambda block: select(_keys(block)), rows.view(f"i{rows.itemsize}"))
    found = _keys(keys).view(rows.dtype)
    low, high = found[..., 0].astype(np.float64), found[..., 1].astype(np.float64)
    return low + (high - low) * (position - below)


def _keys(bits: np.ndarray) -> np.ndarray:
    """Integers in the same order as the floats with these bits, and back. They sort in two thirds of the time."""
    keys = bits >> (8 * bits.itemsize - 1)
    keys &= np.iinfo(bits.dtype).max
    keys ^= bits
    return keys


def _by_order(k: int, ranks: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from keys (R, k) to those (R, levels, 2) at `ranks` in sorted order. It overwrites the keys."""

    def select(keys: np.ndarray) -> np.ndarray:
        if k > LONG:
            keys.partition(np.unique(ranks), axis=-1)
        else:
            keys.sort(axis=-1)
        return keys[:, ranks]

    return select


def _by_dealing(k: int, ranks: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The same as `_by_order`, for ranks (levels, 2) of t and t + 1.

    Uses the first steps of columnsort (Leighton 1985): sort s runs, deal all values like cards into s hands, sort the
    hands. A hand gets every s-th value of each sorted run, with a different offset in each run, since s is odd and the
    run length is a power of two. So of the t values below any given one, a hand holds t/s ± (s − 1)/2, whatever the
    values are, and the values of ranks t and t + 1 are, in every hand, among the s values from place
    ⌈t/s⌉ − (s − 1)/2 on. Only the values at these places are sorted once more.
    """
    run = RUN // 2 if k <= DEALT // 2 else RUN
    hands = -(-k // run) | 1
    starts = np.clip(-(-ranks[:, :1] // hands) - hands // 2, 0, run - hands)
    places = np.unique(starts + np.arange(hands))
    among = ranks - hands * (starts - np.searchsorted(places, starts))

    def select(keys: np.ndarray) -> np.ndarray:
        count = len(keys)
        if k < hands * run:
            keys = np.pad(keys, ((0, 0), (0, hands * run - k)), constant_values=np.iinfo(keys.dtype).max)
        keys.reshape(count, hands, run).sort(axis=-1)
        dealt = np.ascontiguousarray(keys.reshape(count, run, hands).mT)
        dealt.sort(axis=-1)
        kept = dealt.take(places, axis=-1).reshape(count, -1)
        kept.sort(axis=-1)
        return kept[:, among]

    return select


def median_and_extremes(rows: np.ndarray) -> np.ndarray:
    """Median, smallest and largest value (R, 3) in float64 of each row (R, k)."""
    k = rows.shape[-1]
    if k <= LONG:
        return quantiles(rows, np.array([0.5, 0.0, 1.0]))
    # One pivot at a time: with several, numpy leaves its vectorised path (12 ns more per value).
    parted = np.partition(rows, k // 2, axis=-1)
    upper = parted[:, k // 2].astype(np.float64)
    middle = upper if k % 2 else (parted[:, : k // 2].max(axis=-1) + upper) / 2
    return np.stack([middle, rows.min(axis=-1), rows.max(axis=-1)], axis=-1)


def extremes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value (R,) of each row. On rows of a few hundred, `argmin` takes half the time of `min`."""
    values, first = _flat(rows)
    return values[first + rows.argmin(axis=-1)], values[first + rows.argmax(axis=-1)]


def _flat(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A flat view of the rows, without a copy, and the start of each row: one index is faster than two."""
    return rows.reshape(-1, copy=False), np.arange(0, rows.size, rows.shape[-1])


def largest(rows: np.ndarray, count: int) -> np.ndarray:
    """The `count` largest of each row (R, k), falling, zero-padded when k < count; for values ≥ 0.

    Overwrites `rows` when k is large, where taking one maximum after another is fastest.
    """
    k = rows.shape[-1]
    top = np.zeros((len(rows), count), rows.dtype)
    if k <= max(8 * count, RUN):
        kept = min(k, count)
        top[:, :kept] = np.sort(rows, axis=-1)[:, : k - kept - 1 if k > kept else None : -1]
        return top
    values, first = _flat(rows)
    for i in range(count):
        where = first + rows.argmax(axis=-1)
        top[:, i] = values[where]
        values[where] = -1.0
    return top


def outer_extremes(up: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest entry (R,) of rank-1 products, `up` (R, m) and `down` (R, n): products of extremes."""
    ups = np.stack([up.max(axis=-1), up.min(axis=-1)], axis=-1)
    downs = np.stack([down.max(axis=-1), down.min(axis=-1)], axis=-1)
    corners = (ups[:, :, None] * downs[:, None, :]).reshape(-1, 4)
    return corners.max(axis=-1), corners.min(axis=-1)
