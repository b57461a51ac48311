"""Rates of work, and how many times as fast one thing is as another, with bootstrap 95% intervals."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.bootstrap import RESAMPLES, percentile_interval, ratio_interval, resampled_means
from plumbline.core.statistics.samples import Array, paired

MOST_BLOCK_SHARE = 1 / 4
"""Of a series, the longest block: fewer than four blocks say nothing about the spread."""

ENOUGH_PROCESSES = 5
"""With so many processes their medians alone give an interval that covers, and is steady."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as fast, with its bootstrap 95% interval; the ends are NaN where there is only one sample."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """Plain JSON: null for NaN."""
        return {name: None if np.isnan(value) else value for name, value in asdict(self).items()}

    @property
    def half_width(self) -> float:
        """Half the interval's width on a log scale: about the share by which the ratio may be off either way."""
        return (math.log(self.high) - math.log(self.low)) / 2

    def direction(self, threshold: float) -> str:
        """`faster` or `slower` where the whole interval is beyond the threshold, `equal` where all of it is within.

        `unclear` where it is neither, `unknown` where there is no interval. Beyond means above 1 + threshold, or below
        its inverse: which side is called first does not matter.
        """
        if np.isnan(self.low) or np.isnan(self.high):
            return "unknown"
        most, least = 1 + threshold, 1 / (1 + threshold)
        if self.low > most or self.high < least:
            return "faster" if self.low > most else "slower"
        return "equal" if least <= self.low and self.high <= most else "unclear"


def rate(batches: Array) -> float:
    """Σ work ÷ Σ seconds of batches (n, 2), each with its seconds and its work."""
    seconds, work = batches.sum(axis=0)
    return float(work / seconds)


def rate_interval(batches: Array) -> tuple[float, float]:
    """The BCa 95% interval of the rate of batches (n, 2); NaN for fewer than two."""
    if len(batches) < 2:
        return float("nan"), float("nan")
    seconds, work = batches.T
    low, high = ratio_interval(seconds, work)  # seconds per unit of work: the mean of what was clocked
    return 1 / high, 1 / low


def rate_ratio(first: Array, second: Array) -> Ratio:
    """The rate of batches `first` (n, 2) over that of `second` (m, 2), which ran at another time.

    The interval is a percentile bootstrap of the log ratio. The two sides are resampled separately: no batch of one
    belongs to a batch of the other. It covers the spread of batches within the two processes, and not how the machine
    changed between them; what is to be called faster is interleaved instead (`ratio_over_rounds`).
    """
    value = rate(first) / rate(second)
    if min(len(first), len(second)) < 2:
        return Ratio(value=value, low=float("nan"), high=float("nan"))
    low, high = np.exp(percentile_interval(_log_rates(first, seed=0) - _log_rates(second, seed=1)))
    return Ratio(value=value, low=float(low), high=float(high))


def ratio_over_rounds(
    first: ArrayLike, second: ArrayLike, processes: ArrayLike | None = None, *, seed: int = 0
) -> Ratio:
    """How many times `first` is `second`, where both (n,) were measured in each of n interleaved rounds.

    The median of the rounds' log ratios, so that what slows a whole round cancels and a single bad round does not
    decide. The interval is a percentile bootstrap over rounds. Where neighbouring rounds are correlated, blocks of
    rounds are drawn instead (moving blocks; Künsch 1989, Annals of Statistics 17), which makes up for part of it: in
    simulation the interval covers 95% for independent rounds, and for a correlation of 0.5 87% with 40 rounds and 90%
    with 100. One round gives no interval.

    processes: (n,) labels of the processes that the rounds ran in; None: all ran in one. Memory placement and the
    machine's state persist within a process, so several processes are the replicates (as in Kalibera & Jones 2013): the
    ratio is the mean of their medians on a log scale, each process counting alike, and the interval is Student's t over
    their medians, which scatter by the rounds within a process as well. Of fewer than `ENOUGH_PROCESSES` it is the
    wider of that and of the bootstrap over rounds within processes: medians of so few may be close by chance.

    Raises ValueError for unequal lengths and for values that are not positive.
    """
    ours, theirs = paired(first, second)
    if min(ours.min(), theirs.min()) <= 0:
        raise ValueError("a ratio needs positive values")
    logs = np.log(ours / theirs)
    labels = np.zeros(len(logs)) if processes is None else np.asarray(processes)
    parts = [logs[labels == label] for label in np.unique(labels)]
    medians = np.array([np.median(part) for part in parts])
    value = float(medians.mean())
    if len(logs) < 2:
        return Ratio(value=math.exp(value), low=float("nan"), high=float("nan"))
    half = _student(len(parts)) * float(medians.std(ddof=1)) / len(parts) ** 0.5 if len(parts) > 1 else 0.0
    low, high = value - half, value + half
    if len(parts) < ENOUGH_PROCESSES:
        rng = np.random.default_rng(seed)
        ends = percentile_interval(np.mean([_resampled_medians(part, rng) for part in parts], axis=0))
        low, high = min(low, ends[0]), max(high, ends[1])
    return Ratio(value=math.exp(value), low=math.exp(low), high=math.exp(high))


def _resampled_medians(logs: Array, rng: np.random.Generator) -> Array:
    """Medians of resampled rounds of one process, in blocks where neighbours are correlated: (n,) -> (RESAMPLES,)."""
    n, length = len(logs), block_length(logs)
    starts = rng.integers(0, n - length + 1, size=(RESAMPLES, -(-n // length)))
    drawn = (starts[..., None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :n]
    return np.asarray(np.median(logs[drawn], axis=1))


def _student(n: int) -> float:
    """The 97.5% quantile of Student's t for the mean of n values."""
    from scipy.special import stdtrit  # a trial, which needs no scipy, imports this module

    return float(stdtrit(n - 1, 0.975))


def block_length(series: Array) -> int:
    """How many neighbours of a series (n,) to resample together: 1 unless they are positively correlated.

    Correlated: the lag-1 autocorrelation ρ is beyond what 5% of independent series show. Then the length that is
    best for a first-order autoregression, (3n/2)^⅓ (2ρ / (1 - ρ²))^⅔, at most a quarter of the series (Andrews 1991,
    Econometrica 59, for the Bartlett window, which weighs lags as moving blocks do).
    """
    n, deviation = len(series), series - series.mean()
    square = float((deviation**2).sum())
    if n < 4 or square == 0:
        return 1
    rho = float((deviation[1:] * deviation[:-1]).sum()) / square
    if rho <= 1.645 / n**0.5:
        return 1
    length = (1.5 * n) ** (1 / 3) * (2 * rho / (1 - rho**2)) ** (2 / 3)
    return max(1, min(round(length), int(MOST_BLOCK_SHARE * n)))


def _log_rates(batches: Array, seed: int) -> Array:
    """Logarithms of the rates of resampled batches: (n, 2) -> (RESAMPLES,)."""
    seconds, work = resampled_means(batches.T, seed=seed)
    return np.asarray(np.log(work / seconds))
