"""Computes one representation of every adapter as a stream: memory does not grow with the number of rows."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from plumbline.ablation.representations.interface import Representation, View
from plumbline.core.errors import UserError

CHUNK_BYTES = 32 << 20
"""Size of a chunk of rows and its features, unless a single row takes more."""

Features = tuple[str, slice, np.ndarray]


class Adapters(Protocol):
    """The part of an adapter store that is used here. Arrays may be memory-mapped."""

    def block(self, name: str) -> np.ndarray:
        """The factor `name` of every adapter, (N, …)."""
        ...

    def product(self, module: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`up` (N, m, r), `down` (N, r, n) and the scale α/r (N,) of the module."""
        ...


def feature_blocks(
    adapters: Adapters,
    represent: Representation,
    view: View,
    names: Iterable[str],
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[Features]:
    """Yields (name, rows, features (rows, width) in float32) for all rows of all names.

    `names` are factors in the factor view, modules in the product view. The size of the chunks does not change the
    features. Raises UserError when `represent` does not support the view, or a feature is not finite in float32.
    """
    if view not in represent.views:
        raise UserError(
            f"representation {represent.name} does not support the {view} view;"
            f" it supports: {', '.join(represent.views)}"
        )
    _keep_freed_memory()
    chunks = _factor_chunks if view == "factor" else _product_chunks
    for name in names:
        for rows, features in chunks(adapters, represent, name, chunk_bytes):
            yield name, rows, _in_float32(features, represent, name, rows)


def width(adapters: Adapters, represent: Representation, view: View, name: str) -> int:
    """Number of features of one adapter for the factor or module `name`."""
    if view == "factor":
        return represent.width(*adapters.block(name).shape[1:])
    up, down, _ = adapters.product(name)
    return represent.width(up.shape[1], down.shape[2])


def _keep_freed_memory() -> None:
    # glibc returns every freed block above its mapping threshold (128 KiB) to the kernel, so temporaries fault in page
    # by page each time, which took half the time of `stats`. Freeing a larger block once raises the threshold.
    np.empty(24 << 20, np.uint8)


def _factor_chunks(
    adapters: Adapters, represent: Representation, name: str, chunk_bytes: int
) -> Iterator[tuple[slice, np.ndarray]]:
    block = adapters.block(name)
    _, m, n = block.shape
    for rows in _row_slices(len(block), 4 * m * n + 12 * represent.width(m, n), chunk_bytes):
        yield rows, represent(_read(block, rows))


def _product_chunks(
    adapters: Adapters, represent: Representation, name: str, chunk_bytes: int
) -> Iterator[tuple[slice, np.ndarray]]:
    up, down, scale = adapters.product(name)
    (count, m, r), n = up.shape, down.shape[2]
    for rows in _row_slices(count, 12 * r * (m + n) + 12 * represent.width(m, n), chunk_bytes):
        scaled = _read(up, rows) * np.asarray(scale[rows], np.float64)[:, None, None]
        yield rows, represent.product(scaled, _read(down, rows).astype(np.float64))


def _row_slices(count: int, row_bytes: int, chunk_bytes: int) -> Iterator[slice]:
    step = max(1, chunk_bytes // row_bytes)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _read(block: np.ndarray, rows: slice) -> np.ndarray:
    """Rows of a block. They are read from its file, because mapped pages stay in the process's memory once touched."""
    if not isinstance(block, np.memmap) or block.filename is None or not block.flags.c_contiguous:
        return block[rows]
    values = int(np.prod(block.shape[1:]))
    count = rows.stop - rows.start
    offset = block.offset + rows.start * values * block.itemsize
    read = np.fromfile(block.filename, block.dtype, count * values, offset=offset)
    return read.reshape(count, *block.shape[1:])


def _in_float32(features: np.ndarray, represent: Representation, name: str, rows: slice) -> np.ndarray:
    with np.errstate(over="ignore"):
        features32 = features.astype(np.float32)
    if not np.isfinite(features32).all():
        row = rows.start + int(np.flatnonzero(~np.isfinite(features32).all(axis=-1))[0])
        raise UserError(
            f"representation {represent.name} of {name}, row {row}: not finite in float32;"
            " the adapter's weights are out of range, or the representation has a bug"
        )
    return features32
