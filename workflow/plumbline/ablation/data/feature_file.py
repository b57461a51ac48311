"""Feature files: safetensors with one float32 tensor (rows, width) per layer, written as a stream.

The safetensors library can only write tensors that are all in memory, and the features of 50,000 adapters do not fit.
The format (a length, a JSON header, the data) is simple enough to write in order; the library reads it back.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from safetensors import SafetensorError, safe_open

from plumbline.ablation.data.layers import in_layer_set
from plumbline.core.errors import UserError
from plumbline.core.files import atomic, read_json

FLOAT32 = np.dtype("<f4")


class FeatureWriter:
    """Writes chunks of rows in order, layer by layer."""

    def __init__(self, stream: IO[bytes], rows: int, widths: Mapping[str, int], metadata: Mapping[str, str]) -> None:
        self._stream, self._expected = stream, [(name, (rows, width)) for name, width in widths.items()]
        self._place = [0, 0]
        stream.write(_header(rows, widths, metadata))

    def write(self, name: str, chunk: np.ndarray) -> None:
        """Adds the next rows (n, width) of the layer `name`."""
        index, done = self._place
        expected, (rows, width) = self._expected[index]
        if name != expected or chunk.shape[1:] != (width,) or done + len(chunk) > rows:
            raise ValueError(f"{name} {chunk.shape} where {expected} ({rows - done}, {width}) was expected")
        self._stream.write(np.ascontiguousarray(chunk, FLOAT32).data)
        done += len(chunk)
        self._place = [index + 1, 0] if done == rows else [index, done]

    def check_complete(self) -> None:
        """Raises ValueError when rows or layers are missing."""
        if self._place != [len(self._expected), 0]:
            raise ValueError(f"only {self._place[0]} of {len(self._expected)} layers were written")


@contextmanager
def feature_writer(
    path: Path, rows: int, widths: Mapping[str, int], metadata: Mapping[str, str]
) -> Iterator[FeatureWriter]:
    """A writer of the file `path`, which appears whole at the end of the block or not at all.

    widths: layer -> number of features; metadata: strings for the header.
    """
    with atomic(path) as partial, partial.open("wb") as stream:
        writer = FeatureWriter(stream, rows, widths, metadata)
        yield writer
        writer.check_complete()
        stream.flush()


def join(shards: Sequence[Path], path: Path) -> None:
    """Writes the layers of all `shards` to `path`, in order: the same bytes that one writer would have written."""
    rows, widths, metadata = 0, {}, {}
    for shard in shards:
        with _opened(shard) as file:
            metadata = file.metadata()
            for name in file.offset_keys():
                rows, width = file.get_slice(name).get_shape()
                widths[name] = width
    with atomic(path) as partial, partial.open("wb") as stream:
        stream.write(_header(rows, widths, metadata))
        for shard in shards:
            with shard.open("rb") as source:
                source.seek(8 + int.from_bytes(source.read(8), "little"))
                shutil.copyfileobj(source, stream, 16 * 2**20)


def read_features(paths: Sequence[Path], layers: str) -> tuple[np.ndarray, list[str]]:
    """Features (rows, W) float32 of the layers in the layer set, side by side, and the distinct names of the layers.

    Raises UserError when a file is not a feature file, or the files differ in their number of rows.
    """
    found: dict[str, None] = {}
    parts: list[tuple[Path, str, int]] = []
    rows: dict[int, Path] = {}
    for path in paths:
        with _opened(path) as file:
            for name in in_layer_set(file.offset_keys(), layers):
                count, width = file.get_slice(name).get_shape()
                rows.setdefault(count, path)
                parts.append((path, name, width))
                found[name] = None
    if len(rows) > 1:
        names = ", ".join(map(str, rows.values()))
        raise UserError(f"{names}: differ in their number of rows; delete them to have them rebuilt")
    table = np.empty((next(iter(rows), 0), sum(width for *_, width in parts)), np.float32)
    start = 0
    for path, name, width in parts:
        with _opened(path) as file:
            table[:, start : start + width] = file.get_tensor(name)
        start += width
    return table, list(found)


def seconds_of(path: Path) -> float:
    """Wall time in seconds of computing the feature file `path`, the sum over its shards."""
    return float(read_json(path.with_suffix(".json"))["seconds"])


def _header(rows: int, widths: Mapping[str, int], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON header, padded so that the data is aligned to 8 bytes, as the format requires."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name, width in widths.items():
        size = rows * width * FLOAT32.itemsize
        header[name] = {"dtype": "F32", "shape": [rows, width], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"{path}: is not a complete feature file ({error}); delete it to have it rebuilt") from None
