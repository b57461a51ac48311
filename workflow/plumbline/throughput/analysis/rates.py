"""Rates from timed batches, and how many times faster one is than another. Light to import: numpy alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from plumbline.throughput.analysis.records import NOISE
from plumbline.throughput.record import TrialRecord

Array = NDArray[np.float64]

RESAMPLES, CHUNK = 10_000, 500
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as many tokens per second, with its bootstrap 95% interval; the ends are NaN for one batch."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """Plain JSON: null for NaN."""
        return {name: None if np.isnan(value) else value for name, value in asdict(self).items()}

    def direction(self, threshold: float = NOISE) -> str:
        """`faster` or `slower` where the whole interval is beyond the threshold, `equal` where it is whole within it.

        `unclear` where it is neither, `unknown` where there is no interval.
        The interval knows only the batches of two processes, and a third process would differ from both by more than
        it says. That difference is what the threshold stands for, so that no correction for many trials is made.
        Beyond means above 1 + threshold, or below its inverse: which side is called first does not matter.
        """
        if np.isnan(self.low) or np.isnan(self.high):
            return "unknown"
        most, least = 1 + threshold, 1 / (1 + threshold)
        if self.low > most or self.high < least:
            return "faster" if self.low > most else "slower"
        return "equal" if least <= self.low and self.high <= most else "unclear"


def timed(record: TrialRecord) -> Array:
    """The record's batches that are right and count: (n, 2), seconds and tokens of each."""
    good = [batch for batch in record.batches if batch.ok and batch.counts]
    return np.array([[batch.seconds, batch.tokens] for batch in good], dtype=np.float64).reshape(-1, 2)


def decoded(record: TrialRecord) -> Array:
    """The record's decode steps, from the latency pass: (n, 2), seconds and tokens of each."""
    gaps = np.array(record.inter_token_seconds, dtype=np.float64)
    return np.stack([gaps, np.full(len(gaps), float(record.batch))], axis=1)


def rate(batches: Array) -> float:
    """Σ tokens ÷ Σ seconds of batches (n, 2)."""
    seconds, tokens = batches.sum(axis=0)
    return float(tokens / seconds)


def rate_interval(batches: Array) -> tuple[float, float]:
    """The bootstrap 95% interval of the rate of batches (n, 2), percentile; NaN for fewer than two."""
    if len(batches) < 2:
        return float("nan"), float("nan")
    return _ends(_log_rates(batches, np.random.default_rng(0)))


def rate_ratio(first: Array, second: Array) -> Ratio:
    """The rate of batches `first` (n, 2) over that of `second` (m, 2)."""
    return mean_ratio([(first, second)])


def mean_ratio(pairs: Sequence[tuple[Array, Array]]) -> Ratio:
    """The geometric mean of the rate ratios of `pairs`, each of batches (n, 2) and (m, 2).

    The interval is a percentile bootstrap of the log ratio. Both sides are resampled by themselves, for they ran one
    after the other in two processes and no batch of one belongs to a batch of the other. It therefore covers the
    spread of batches within the processes, and not how a process differs from the next. Raises ValueError for no pair.
    """
    if not pairs:
        raise ValueError("a ratio needs at least one pair")
    logs = np.log([rate(first) / rate(second) for first, second in pairs])
    value = float(np.exp(logs.mean()))
    if min(len(side) for pair in pairs for side in pair) < 2:
        return Ratio(value=value, low=float("nan"), high=float("nan"))
    rng = np.random.default_rng(0)
    replicates = np.mean([_log_rates(first, rng) - _log_rates(second, rng) for first, second in pairs], axis=0)
    low, high = _ends(replicates)
    return Ratio(value=value, low=low, high=high)


def _log_rates(batches: Array, rng: np.random.Generator) -> Array:
    """Logarithms of the rates of resampled batches: (n, 2) -> (RESAMPLES,)."""
    sums = []
    for _ in range(RESAMPLES // CHUNK):  # all at once would take 100 MB for a thousand batches
        drawn = rng.integers(0, len(batches), size=(CHUNK, len(batches)))
        sums.append([column[drawn].sum(axis=1) for column in batches.T])
    seconds, tokens = np.concatenate(sums, axis=1)
    return np.asarray(np.log(tokens / seconds))


def _ends(logs: Array) -> tuple[float, float]:
    low, high = np.exp(np.quantile(logs, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    return float(low), float(high)
