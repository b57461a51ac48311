"""Losses of n-gram models: what a table that counts tokens reaches on the windows that the trials are scored on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ADDED = 0.1
"""Added to each count of the bigram model."""
STRENGTHS = 2.0 ** np.arange(-2, 13)
"""Candidates for how many counts the lower order is worth in the interpolated model."""
HELD_OUT = 0.05
"""Share of the training tokens, at their end, on which these are chosen."""
CHUNK = 1 << 22
"""Training tokens that are counted at once."""
FORMULAS = {
    "unigram": "add-one counts of each token",
    "bigram": f"counts of each pair, {ADDED:g} added",
    "trigram": "counts of each triple, interpolated with pairs and single tokens (MacKay and Peto 1995, section 3)",
}


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often the n-grams of windows (W, C + 1) occur in a training text; each (W, C), one per target."""

    tokens: int
    """Length of the training text."""
    vocabulary: int
    word: Array
    context: Array
    """Of the token before the target."""
    pair: Array
    context_pair: Array
    """Of the two tokens before the target; 0, as `triple`, for a window's first target, which has one before it."""
    triple: Array

    @classmethod
    def of(cls, training: NDArray[Any], rows: NDArray[Any], vocabulary: int) -> "Counts":
        """Counts of the windows `rows` (W, C + 1) in the tokens `training` (N,)."""
        rows = rows.astype(np.int64)
        pairs = rows[:, :-1] * vocabulary + rows[:, 1:]
        triples = pairs[:, :-1] * vocabulary + rows[:, 2:]
        single = occurrences(training, rows, 1, vocabulary)
        double = occurrences(training, pairs, 2, vocabulary)
        triple = np.zeros(pairs.shape)
        triple[:, 1:] = occurrences(training, triples, 3, vocabulary)
        context_pair = np.zeros(pairs.shape)
        context_pair[:, 1:] = double[:, :-1]
        return cls(
            tokens=len(training),
            vocabulary=vocabulary,
            word=single[:, 1:],
            context=single[:, :-1],
            pair=double,
            context_pair=context_pair,
            triple=triple,
        )

    def unigram(self) -> Array:
        """Probabilities (W, C) of the targets by how often each token occurs, one added."""
        return (self.word + 1) / (self.tokens + self.vocabulary)

    def bigram(self) -> Array:
        """Probabilities (W, C) of the targets given the token before, ADDED added."""
        return (self.pair + ADDED) / (self.context + ADDED * self.vocabulary)

    def interpolated(self, pairs: float, triples: float) -> Array:
        """Probabilities (W, C) given two tokens: each order is worth so many counts to the one above it."""
        second = (self.pair + pairs * self.unigram()) / (self.context + pairs)
        return np.asarray((self.triple + triples * second) / (self.context_pair + triples))


def occurrences(training: NDArray[Any], codes: NDArray[np.int64], order: int, vocabulary: int) -> Array:
    """How often each n-gram of `codes` occurs in `training` (N,); the code of (a, b, c) is (a·V + b)·V + c."""
    wanted, places = np.unique(codes, return_inverse=True)
    counts = np.zeros(len(wanted), dtype=np.int64)
    for start in range(0, len(training), CHUNK):
        part = training[start : start + CHUNK + order - 1].astype(np.int64)
        if len(part) < order:
            break
        found = np.zeros(len(part) - order + 1, dtype=np.int64)
        for offset in range(order):
            found = found * vocabulary + part[offset : len(part) - order + 1 + offset]
        index = np.minimum(np.searchsorted(wanted, found), len(wanted) - 1)
        counts += np.bincount(index[wanted[index] == found], minlength=len(wanted))
    return counts[places].reshape(codes.shape).astype(np.float64)


def window_losses(training: NDArray[Any], rows: NDArray[Any], vocabulary: int) -> tuple[Mapping[str, Array], Array]:
    """Mean loss in nats of each window (W, C + 1) of `rows` under each model of FORMULAS, and the strengths chosen.

    The two strengths of the interpolated model have the lowest loss on the end of the training text, given counts of
    the rest; the counts are then those of the whole training text.
    """
    strengths = _strengths(training, rows.shape[1], vocabulary)
    counts = Counts.of(training, rows, vocabulary)
    models = {
        "unigram": counts.unigram(),
        "bigram": counts.bigram(),
        "trigram": counts.interpolated(*strengths),
    }
    return {name: -np.log(probabilities).mean(axis=1) for name, probabilities in models.items()}, strengths


def _strengths(training: NDArray[Any], width: int, vocabulary: int) -> Array:
    cut = len(training) - max(round(HELD_OUT * len(training)), width)
    if cut < 1:
        return np.ones(2)
    ends = range(cut, len(training) - width + 1, width - 1)
    counts = Counts.of(training[:cut], np.stack([training[first : first + width] for first in ends]), vocabulary)
    pairs = min(STRENGTHS, key=lambda strength: -np.log(counts.interpolated(strength, 1e12)).mean())
    triples = min(STRENGTHS, key=lambda strength: -np.log(counts.interpolated(pairs, strength)).mean())
    return np.array([pairs, triples])
