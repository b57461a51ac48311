"""A corpus: a parquet table of documents in a folder, written and read one row group at a time."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plumbline.core.errors import UserError

FILE = "documents.parquet"
SCHEMA = pa.schema([("name", pa.string()), ("text", pa.string()), ("validation", pa.bool_())])
GROUP_BYTES = 2**20
"""Bytes of text in one row group, which is what a reader holds in memory; a longer document gets its own."""


def hash_fraction(text: str) -> float:
    """A number in [0, 1) from the hash of the text, uniform over different texts."""
    first = hashlib.sha256(text.encode()).digest()[:8]
    return int.from_bytes(first, "big") / 2**64


def is_held_out(text: str, share: float) -> bool:
    """Whether a document is held out for validation: depends on its text only, True for about `share` of them."""
    return hash_fraction(text) < share


def move(folder: Path, number: int, *, validation: bool) -> int:
    """Moves document `number` of the corpus `folder` to validation or to training; returns the bytes of its text."""
    path, partial = folder / FILE, folder / f"{FILE}.partial"
    size = first = 0
    with _opened(path) as file, pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            row = number - first
            if 0 <= row < table.num_rows:
                sides = table["validation"].to_pylist()
                sides[row] = validation
                table = table.set_column(2, SCHEMA.field(2), pa.array(sides))
                size = len(table["text"][row].as_py().encode())
            writer.write_table(table)
            first += table.num_rows
    partial.replace(path)
    return size


class DocumentWriter:
    """Writes documents to the corpus `folder` and counts them."""

    def __init__(self, folder: Path) -> None:
        self.documents = {"training": 0, "validation": 0}
        self.bytes = {"training": 0, "validation": 0}
        self._digest = hashlib.sha256()
        self._file = pq.ParquetWriter(folder / FILE, SCHEMA, compression="zstd")
        self._rows: list[tuple[str, str, bool]] = []
        self._waiting = 0

    def write(self, name: str, text: str, validation: bool) -> int:
        """Adds a document; returns the bytes of its text."""
        data, side = text.encode(), "validation" if validation else "training"
        self._digest.update(len(data).to_bytes(8, "little") + data)
        self.documents[side] += 1
        self.bytes[side] += len(data)
        self._rows.append((name, text, validation))
        self._waiting += len(data)
        if self._waiting >= GROUP_BYTES:
            self._write_group()
        return len(data)

    @property
    def sha256(self) -> str:
        """SHA-256 over all texts in order, each as its length (eight bytes, little-endian) and its UTF-8."""
        return self._digest.hexdigest()

    def _write_group(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            self._file.write_table(pa.Table.from_arrays([pa.array(values) for values in columns], schema=SCHEMA))
        self._rows, self._waiting = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._write_group()
        self._file.close()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Consecutive documents."""

    texts: list[str]
    validation: np.ndarray
    """(documents,) bool."""
    bytes: np.ndarray
    """(documents,) int64: UTF-8 bytes of each text."""

    @property
    def training_texts(self) -> list[str]:
        """The texts that are not held out for validation."""
        return [text for text, held_out in zip(self.texts, self.validation, strict=True) if not held_out]


def count_batches(folder: Path) -> int:
    """Number of batches that `read` yields."""
    with _opened(folder / FILE) as file:
        return int(file.num_row_groups)


def read(folder: Path) -> Iterator[Batch]:
    """The documents of the corpus in order, about a megabyte of text at a time.

    Raises UserError when the file is not a complete corpus.
    """
    path = folder / FILE
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            try:
                table = file.read_row_group(group, columns=["text", "validation"], use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from error
            yield Batch(
                texts=table["text"].to_pylist(),
                validation=table["validation"].to_numpy(),
                bytes=pc.binary_length(table["text"]).to_numpy().astype(np.int64),
            )


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> UserError:
    return UserError(f"{path}: is not a complete corpus ({error}); delete it to have it rebuilt")
