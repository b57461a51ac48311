"""The bootstrap: one resampler for means, ratios, pairs and clusters, and two kinds of interval.

Which interval: BCa for means and ratios of means over one set of independent units (runs, pairs, batches, whole
groups), because it corrects their bias and skew. Percentile where the jackknife that BCa needs does not apply:
medians, minima, blocks of a series, and ratios whose two sides are resampled separately.
"""

from collections.abc import Iterator
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.samples import Array, finite, paired

# The standard library's normal distribution: scipy takes a second to import, and a trial needs nothing else of it.
_normal_quantile = np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])
_normal_share = np.vectorize(NormalDist().cdf, otypes=[np.float64])

RESAMPLES = 10_000
CONFIDENCE = 0.95
LARGEST_CACHED = 256
RESAMPLES_AT_ONCE = 500  # of larger samples: all at once would take 80 MB for a thousand values


def bootstrap_interval(
    samples: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[Array, Array]:
    """The BCa interval of the mean along the last axis: (..., n) -> low (...), high (...).

    Bias-corrected and accelerated (Efron 1987, "Better Bootstrap Confidence Intervals", JASA 82). All leading axes use
    the same resamples, so curves have smooth bands and an interval does not depend on what is computed beside it.
    Equal samples give a width of zero; a single sample gives NaN, because it says nothing about the spread. Raises
    ValueError when there is no sample or a value is not finite.
    """
    values = finite(samples)
    replicates = resampled_means(values, seed=seed, resamples=resamples)
    return _bca(values.mean(axis=-1), replicates, _left_out(values), confidence)


def ratio_interval(
    numerators: ArrayLike, denominators: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The BCa 95% interval of Σ numerators / Σ denominators over n units, each resampled with both of its values.

    A unit is whatever is independent: a batch with its tokens and seconds, a pair of runs, a group with its sum and
    size. NaN for a single unit, and where a resample's denominators sum to zero. Raises ValueError for unequal lengths.
    """
    values = np.stack(paired(numerators, denominators))
    replicates = resampled_means(values, seed=seed, resamples=resamples)
    means, left_out = values.mean(axis=-1), _left_out(values)
    if any((side[1] == 0).any() for side in (means, replicates, left_out)):
        return float("nan"), float("nan")
    low, high = _bca(means[0] / means[1], replicates[0] / replicates[1], left_out[0] / left_out[1], CONFIDENCE)
    return float(low), float(high)


def clustered_interval(samples: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> tuple[float, float]:
    """The BCa 95% interval of the mean of `samples` (n,), where samples of one of `groups` (n,) are not independent.

    Whole groups are resampled, large or small, and the mean is over all their samples (Davison & Hinkley 1997,
    "Bootstrap Methods and their Application", section 3.8). NaN for a single group. Raises ValueError for
    unequal lengths.
    """
    _, group_of_sample = np.unique(np.asarray(groups), return_inverse=True)
    values, _ = paired(samples, group_of_sample)
    return ratio_interval(np.bincount(group_of_sample, weights=values), np.bincount(group_of_sample), seed=seed)


def clustered_rank_interval(
    first: ArrayLike, second: ArrayLike, groups: ArrayLike, *, seed: int = 0
) -> tuple[float, float]:
    """The BCa 95% interval of Spearman's rank correlation of two series (n,), with `groups` (n,) resampled as above.

    A sample that is drawn twice is two, which share a rank. NaN for a single group, or when some draw has only equal
    values. With few groups it is far too narrow: with four, it holds the truth a third of the time. Raises ValueError
    for unequal lengths.
    """
    series = paired(first, second)
    _, group_of_sample = np.unique(np.asarray(groups), return_inverse=True)
    paired(first, group_of_sample)
    count = int(group_of_sample.max()) + 1

    def correlations(drawn: Array) -> Array:
        """drawn: how often each group is, (B, count). Returns (B,)."""
        times = drawn[:, group_of_sample]
        one, two = (np.sqrt(times) * _deviations(values, times) for values in series)
        with np.errstate(invalid="ignore"):
            return np.asarray((one * two).sum(-1) / np.sqrt((one**2).sum(-1) * (two**2).sum(-1)))

    each = np.ones((1, count))
    replicates = correlations(np.rint(count * _weights(count, seed, RESAMPLES).T))
    left_out = correlations(each - np.eye(count))
    if not (np.isfinite(replicates).all() and np.isfinite(left_out).all()):
        return float("nan"), float("nan")
    low, high = _bca(correlations(each)[0], replicates, left_out, CONFIDENCE)
    return float(low), float(high)


def _deviations(values: Array, times: Array) -> Array:
    """Of the midranks of values (n,), each of which there is `times` (B, n), from their mean: (B, n)."""
    _, place = np.unique(values, return_inverse=True)
    equal = times @ np.eye(place.max() + 1)[place]
    return np.asarray((equal.cumsum(-1) - equal / 2)[:, place] - times.sum(-1, keepdims=True) / 2)


def resampled_means(samples: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Array:
    """Means of bootstrap resamples along the last axis: (..., n) -> (..., resamples).

    Series of one length and one seed are resampled together, as pairs; with different seeds, separately.
    """
    values = np.asarray(samples, dtype=np.float64)
    n = values.shape[-1]
    if n <= LARGEST_CACHED:
        return np.asarray(values @ _weights(n, seed, resamples))
    return np.concatenate([values @ weights for weights in _draws(n, seed, resamples)], axis=-1)


def percentile_interval(replicates: Array) -> tuple[float, float]:
    """The middle 95% of replicates (B,)."""
    low, high = np.quantile(replicates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _draws(n: int, seed: int, resamples: int) -> Iterator[Array]:
    """How often each of n samples is drawn, over n: blocks of (n, up to RESAMPLES_AT_ONCE)."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        count = min(RESAMPLES_AT_ONCE, resamples - start)
        yield rng.multinomial(n, np.full(n, 1 / n), size=count).T / n


@lru_cache(maxsize=16)
def _weights(n: int, seed: int, resamples: int) -> Array:
    """All draws of `_draws` side by side: (n, resamples)."""
    weights = np.concatenate(list(_draws(n, seed, resamples)), axis=1)
    weights.flags.writeable = False
    return weights


def _left_out(values: Array) -> Array:
    """Means with each sample left out in turn: (..., n) -> (..., n); n = 1 gives NaN."""
    n = values.shape[-1]
    if n == 1:
        return np.full(values.shape, np.nan)
    return np.asarray((values.sum(axis=-1, keepdims=True) - values) / (n - 1))


def _bca(estimate: Array, replicates: Array, left_out: Array, confidence: float) -> tuple[Array, Array]:
    """Efron's interval from the estimate (...), its replicates (..., resamples) and its jackknife (..., n).

    The bias z0 counts half of the replicates that equal the estimate, because means of few runs have many ties.
    """
    if left_out.shape[-1] == 1:
        return np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
    distance = replicates - estimate[..., None]
    spread = np.abs(distance).max(axis=-1, keepdims=True)
    below, above = distance < -1e-9 * spread, distance > 1e-9 * spread
    z0 = _normal_quantile(np.clip((1 + below.mean(-1) - above.mean(-1)) / 2, 1e-6, 1 - 1e-6))
    deviation = left_out.mean(axis=-1, keepdims=True) - left_out
    square = (deviation**2).sum(axis=-1)
    flat = square <= (1e-12 * np.abs(estimate)) ** 2
    acceleration = (deviation**3).sum(axis=-1) / (6 * np.where(flat, 1.0, square) ** 1.5)
    acceleration = np.where(flat, 0.0, acceleration)
    ordered = np.sort(replicates, axis=-1)
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = z0 + NormalDist().inv_cdf(tail)
        level = _normal_share(z0 + z / (1 - acceleration * z))
        ends.append(np.where(flat, estimate, _quantile(ordered, level)))
    return ends[0], ends[1]


def _quantile(ordered: Array, level: Array) -> Array:
    """Linearly interpolated quantiles of sorted (..., k), one level (...) each."""
    position = level * (ordered.shape[-1] - 1)
    before = np.floor(position).astype(np.intp)[..., None]
    after = np.minimum(before + 1, ordered.shape[-1] - 1)
    left = np.take_along_axis(ordered, before, axis=-1)[..., 0]
    right = np.take_along_axis(ordered, after, axis=-1)[..., 0]
    return np.asarray(left + (position - before[..., 0]) * (right - left))
