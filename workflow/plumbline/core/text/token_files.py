"""Token files: little-endian unsigned integers, the documents one after another, each with an end-of-text token."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np


def dtype_of(vocabulary: int) -> np.dtype:
    """The smaller of uint16 and uint32, little-endian, that holds every token of a vocabulary."""
    return np.dtype("<u2" if vocabulary < 2**16 else "<u4")


class TokenWriter:
    """Writes tokens to the file at `path` and counts them."""

    def __init__(self, path: Path, vocabulary: int, end_of_text: int) -> None:
        self.counts = np.zeros(vocabulary, np.int64)
        """(vocabulary,): how often each token was written."""
        self.text_bytes = self.documents = 0
        self._dtype, self._end = dtype_of(vocabulary), [end_of_text]
        self._digest = hashlib.sha256()
        self._stream = path.open("wb")

    def write(self, documents: Iterable[list[int]], text_bytes: int) -> None:
        """Adds encoded documents, each followed by an end-of-text token. text_bytes: bytes of their text together."""
        parts = [np.array(ids + self._end, self._dtype) for ids in documents]
        if not parts:
            return
        tokens = np.concatenate(parts)
        self.documents += len(parts)
        self.counts += np.bincount(tokens, minlength=len(self.counts))
        self.text_bytes += text_bytes
        self._digest.update(tokens.data)
        self._stream.write(tokens.data)

    @property
    def tokens(self) -> int:
        """Number of tokens written."""
        return int(self.counts.sum())

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def unigram_entropy(training: np.ndarray, validation: np.ndarray) -> float:
    """Cross-entropy, in nats per token, of the validation tokens under the training frequencies (add-one smoothed).

    This is the loss of the best model that ignores context. Both arguments are (vocabulary,) counts; those of
    validation must not all be zero.
    """
    frequencies = (training + 1) / (training.sum() + len(training))
    return float(-(validation @ np.log(frequencies)) / validation.sum())
