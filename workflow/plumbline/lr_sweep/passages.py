"""Passages that the training text shares with the validation text (Lee et al. 2022, arXiv 2107.06499, section 4.1)."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class SharedPassages:
    """The passages of `length` tokens that occur in the validation documents, by a 64-bit hash."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._parts: list[NDArray[np.uint64]] = []
        self._known = np.empty(0, np.uint64)

    def add(self, documents: Iterable[list[int]]) -> None:
        """Adds the passages of tokenized documents."""
        self._parts += [self._hashes(ids) for ids in documents]

    def finish(self) -> None:
        """Must be called after the last `add`."""
        self._known = np.unique(np.concatenate([np.empty(0, np.uint64), *self._parts]))
        self._parts = []

    def without(self, ids: list[int]) -> list[list[int]]:
        """The rest of a document, in pieces, once every token that lies in a known passage is removed."""
        hashes = self._hashes(ids)
        if not (len(hashes) and len(self._known)):
            return [ids]
        nearest = np.minimum(np.searchsorted(self._known, hashes), len(self._known) - 1)
        found = np.flatnonzero(self._known[nearest] == hashes)
        if not len(found):
            return [ids]
        changes = np.zeros(len(ids) + 1, np.int64)
        np.add.at(changes, found, 1)
        np.add.at(changes, found + self.length, -1)
        kept = np.flatnonzero(np.cumsum(changes[:-1]) == 0)
        pieces = np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)
        return [[ids[place] for place in piece] for piece in pieces if len(piece)]

    def _hashes(self, ids: list[int]) -> NDArray[np.uint64]:
        """A polynomial hash, modulo 2^64, of the passage that begins at each token."""
        tokens = np.array(ids, np.uint64)
        count = len(tokens) - self.length + 1
        hashes = np.zeros(max(count, 0), np.uint64)
        for offset in range(self.length if count > 0 else 0):
            hashes = hashes * MULTIPLIER + tokens[offset : count + offset] + np.uint64(1)
        return hashes
