"""Ratios from interleaved rounds: median log ratio, bootstrap over rounds, and a verdict that A/A has widened."""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
RESAMPLES, CHUNK = 4_000, 500
CONFIDENCE = 0.95
BAND = 0.03
"""A ratio whose interval lies within this share of 1, either way, is no difference that matters."""


class Verdict(StrEnum):
    """What an interval says about a ratio of speeds."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class RoundRatio:
    """How many times as fast a candidate is as the baseline, with its bootstrap 95% interval over rounds."""

    value: float
    low: float
    high: float
    rounds: int
    block: int
    """Rounds that were resampled together: 1 where consecutive rounds are not correlated."""

    @property
    def half_width(self) -> float:
        """Half the interval's width, as a share of the ratio."""
        return (math.log(self.high) - math.log(self.low)) / 2

    def verdict(self, control: "RoundRatio", band: float = BAND) -> Verdict:
        """From the interval widened by what the A/A `control` shows: its distance from 1 and its standard error.

        `no difference` where all of it is within `band` of 1; `faster` or `slower` where it excludes 1;
        `inconclusive` otherwise, and for everything when the control's own interval excludes the band.
        """
        bias, edge = math.hypot(math.log(control.value), control.half_width / 1.96), math.log1p(band)
        if math.log(control.low) > edge or math.log(control.high) < -edge:
            return Verdict.INCONCLUSIVE
        low, high = math.log(self.low) - bias, math.log(self.high) + bias
        if -edge <= low and high <= edge:
            return Verdict.NO_DIFFERENCE
        if low > 0:
            return Verdict.FASTER
        return Verdict.SLOWER if high < 0 else Verdict.INCONCLUSIVE


def round_ratio(baseline: ArrayLike, candidate: ArrayLike, *, seed: int = 0) -> RoundRatio:
    """How many times as fast: the median over rounds of log(baseline seconds / candidate seconds), exponentiated.

    Both: (rounds,) seconds per unit of work, positive. The interval is a percentile bootstrap over rounds, in moving
    blocks (Künsch 1989) as long as the log ratios are autocorrelated. Raises ValueError for fewer than two rounds.
    """
    first, second = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(f"a ratio needs two series of two rounds or more, got shapes {first.shape} and {second.shape}")
    logs = np.log(first / second)
    block = block_length(logs)
    medians = _block_medians(logs, block, np.random.default_rng(seed))
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(np.exp(np.median(logs)))
    return RoundRatio(value=value, low=float(np.exp(low)), high=float(np.exp(high)), rounds=len(logs), block=block)


def block_length(values: Array) -> int:
    """How many consecutive values hang together: lags until the autocorrelation is within chance, at most n^(1/2)."""
    n = len(values)
    centred = values - values.mean()
    power = float(centred @ centred)
    longest = max(1, int(math.sqrt(n)))
    if power == 0:
        return 1
    for lag in range(1, longest):
        if float(centred[:-lag] @ centred[lag:]) / power <= 1.96 / math.sqrt(n):
            return lag
    return longest


def _block_medians(values: Array, block: int, random: np.random.Generator) -> Array:
    """Medians of series resampled in overlapping blocks: (RESAMPLES,)."""
    n = len(values)
    count = -(-n // block)
    medians = []
    for _ in range(RESAMPLES // CHUNK):
        starts = random.integers(0, n - block + 1, size=(CHUNK, count, 1))
        places = (starts + np.arange(block)).reshape(CHUNK, -1)[:, :n]
        medians.append(np.median(values[places], axis=1))
    return np.concatenate(medians)
