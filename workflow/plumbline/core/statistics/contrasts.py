"""Intervals, paired contrasts and corrections: what tables and figures are computed with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# The standard library's normal distribution: scipy's takes a second to import, and a trial needs nothing else of it.
_normal_quantile = np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])
_normal_share = np.vectorize(NormalDist().cdf, otypes=[np.float64])

RESAMPLES = 10_000
CONFIDENCE = 0.95
ALPHA = 0.05
DIGITS = 12  # differences equal to this many decimals are ties: 0.9 - 0.85 and 0.85 - 0.8 are


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A paired comparison of `sample` with `baseline`, run by run. Positive: the sample is higher.

    `difference` is the mean difference with its interval `low`, `high`; `relative` the ratio of the means
    minus one with its interval. `p_value` is the two-sided Wilcoxon signed-rank test, `p_floor` the least
    p-value that so many pairs can give at all. Effect sizes: matched-pairs rank-biserial correlation and Cohen's d_z.
    """

    pairs: int
    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    p_value: float
    p_floor: float
    rank_biserial: float
    cohens_dz: float


def bootstrap_interval(
    samples: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[Array, Array]:
    """The bootstrap interval of the mean along the last axis: (..., n) -> low (...), high (...).

    Bias-corrected and accelerated (Efron 1987, "Better Bootstrap Confidence Intervals", JASA 82). All leading
    axes use the same resamples, so that curves have smooth bands and an interval does not depend on what is
    computed beside it. Equal samples give a width of zero; a single sample gives NaN, for one says nothing
    about the spread. Raises ValueError when there is no sample or a value is not finite.
    """
    values = _finite(samples)
    mean = values.mean(axis=-1)
    return _bca(mean, _resampled(values, seed, resamples), _left_out(values), confidence)


def paired_contrast(sample: ArrayLike, baseline: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Contrast:
    """Compares two series of equal length, paired by position. Raises ValueError for unequal lengths.

    The pairs are resampled, never the two series apart. The relative difference is NaN when the baseline's
    mean is zero; d_z is infinite when all differences are the same and not zero.
    """
    first, second = _finite(sample), _finite(baseline)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"pairs need two series of one length, got shapes {first.shape} and {second.shape}")
    differences = np.round(first - second, DIGITS)
    low, high = bootstrap_interval(differences, seed=seed, resamples=resamples)
    relative, relative_low, relative_high = _relative_difference(first, second, seed, resamples)
    return Contrast(
        pairs=len(differences),
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        relative=relative,
        relative_low=relative_low,
        relative_high=relative_high,
        p_value=wilcoxon_p(differences),
        p_floor=min(1.0, 2.0 ** (1 - len(differences))),
        rank_biserial=rank_biserial(differences),
        cohens_dz=cohens_dz(differences),
    )


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test; zero differences are dropped, all zero gives 1.

    Exact for any number of pairs and with ties: the null distribution of the rank sum given the midranks is
    built up pair by pair (scipy enumerates all 2^n signs where there are ties, 300 ms for ten pairs).
    """
    values = _nonzero(differences)
    doubled = np.rint(2 * _midranks(np.abs(values))).astype(np.intp)  # midranks are halves of integers
    null = np.ones(1)
    for rank in doubled:
        null = np.pad(null, (0, rank)) / 2 + np.pad(null, (rank, 0)) / 2
    positive = int(doubled[values > 0].sum())
    least = min(positive, len(null) - 1 - positive)
    return min(1.0, 2 * float(null[: least + 1].sum()))


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation in [-1, 1]: positive share of the rank sum minus the negative.

    Kerby 2014, "The simple difference formula". Zero differences are dropped; all zero gives 0.
    """
    values = _nonzero(differences)
    if not values.size:
        return 0.0
    ranks = _midranks(np.abs(values))
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def cohens_dz(differences: ArrayLike) -> float:
    """Mean over standard deviation (n - 1) of the differences (Cohen 1988, section 2.3.5).

    All zero gives 0, all equal and not zero an infinity of their sign, a single pair NaN.
    """
    values = np.round(_finite(differences), DIGITS)
    if values.size < 2:
        return float("nan")
    if np.ptp(values) == 0:
        return float(np.sign(values[0]) * np.inf) if values[0] else 0.0
    return float(values.mean() / values.std(ddof=1))


def holm(p_values: Sequence[float] | Array) -> Array:
    """Holm's step-down correction of one family of p-values, in their order (Holm 1979, Scand. J. Stat. 6).

    A NaN is a test that could not be made: it stays NaN and does not count in the family.
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected


def _finite(samples: ArrayLike) -> Array:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError("a statistic needs at least one sample")
    if not np.isfinite(values).all():
        raise ValueError("a statistic needs finite samples")
    return values


def _nonzero(differences: ArrayLike) -> Array:
    values = np.round(_finite(differences), DIGITS)
    return values[values != 0]


def _midranks(values: Array) -> Array:
    from scipy.stats import rankdata  # takes a second to import, and an interval needs none of it

    return np.asarray(rankdata(values))


@lru_cache(maxsize=16)
def _weights(n: int, seed: int, resamples: int) -> Array:
    """How often each of n samples is drawn, over n: (n, resamples)."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    weights = np.ascontiguousarray(drawn.T / n)
    weights.flags.writeable = False
    return weights


def _resampled(values: Array, seed: int, resamples: int) -> Array:
    """Means of the resamples: (..., n) -> (..., resamples)."""
    return np.asarray(values @ _weights(values.shape[-1], seed, resamples))


def _left_out(values: Array) -> Array:
    """Means with each sample left out in turn: (..., n) -> (..., n); n = 1 gives NaN."""
    n = values.shape[-1]
    if n == 1:
        return np.full(values.shape, np.nan)
    return np.asarray((values.sum(axis=-1, keepdims=True) - values) / (n - 1))


def _relative_difference(first: Array, second: Array, seed: int, resamples: int) -> tuple[float, float, float]:
    resampled = _resampled(second, seed, resamples)
    left_out = _left_out(second)
    if second.mean() == 0 or (resampled == 0).any() or (left_out == 0).any():
        return float("nan"), float("nan"), float("nan")
    estimate = np.asarray(first.mean() / second.mean() - 1)
    replicates = _resampled(first, seed, resamples) / resampled - 1
    low, high = _bca(estimate, replicates, _left_out(first) / left_out - 1, CONFIDENCE)
    return float(estimate), float(low), float(high)


def _bca(estimate: Array, replicates: Array, left_out: Array, confidence: float) -> tuple[Array, Array]:
    """Efron's interval from the estimate (...), its replicates (..., resamples) and its jackknife (..., n).

    The bias z0 counts a replicate equal to the estimate by half, for means of few runs have many ties.
    """
    if left_out.shape[-1] == 1:
        return np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
    spread = np.abs(replicates - estimate[..., None]).max(axis=-1, keepdims=True)
    distance = replicates - estimate[..., None]
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
