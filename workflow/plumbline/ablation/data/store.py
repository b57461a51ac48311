"""The adapter store: the factors of many adapters on disk, one contiguous block per factor. A folder with
- `manifest.json`: schema, rows, classes, source, modules, blocks with their shapes and hashes, skipped adapters;
- `blocks/000.npy` …: float32 (rows, …), one per factor, in the manifest's order, for memory-mapping;
- `scales.npy`: float64 (rows, modules), α/r, 1 where unknown;
- `rows.parquet`: one row per adapter (see `adapter_rows`).

It is layer-major, because a representation reads one factor of all adapters at a time.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy

from plumbline.ablation.data.layers import DOWN, UP, natural_order, split_factor, why_empty
from plumbline.ablation.data.manifest import Block, Manifest, Module, SkippedAdapter
from plumbline.core.errors import UserError
from plumbline.core.files import atomic

MANIFEST, SCALES, ROWS = "manifest.json", "scales.npy", "rows.parquet"
Shape = tuple[int, int]


class AdapterStore:
    """Reads a store. Blocks are memory-mapped, read-only.

    Raises UserError when `path` is not a store, has another schema, or has a missing or truncated file.
    """

    def __init__(self, path: Path) -> None:
        if not (path / MANIFEST).is_file():
            raise UserError(f"{path}: is not an adapter store (no {MANIFEST}); build it with stage `ablation.collect`")
        self.path, self.manifest = path, Manifest.read(path / MANIFEST)
        self.rows, self.classes = self.manifest.rows, self.manifest.classes
        self.modules, self.blocks = self.manifest.modules, self.manifest.blocks
        self._files = {block.name: path / block.file for block in self.blocks}
        self._position = {module.name: index for index, module in enumerate(self.modules)}
        for block in self.blocks:
            if not self._files[block.name].resolve().is_relative_to(path.resolve()):
                raise self._broken(path / MANIFEST, f"names {block.file}, outside the store")
            self._check(self._files[block.name], block.shape, np.float32)
        self._check(path / SCALES, (self.rows, len(self.modules)), np.float64)
        if not (path / ROWS).is_file():
            raise self._broken(path / ROWS, "is missing")
        self._scales = np.load(path / SCALES)
        # ParquetFile, because read_table imports pandas, which takes half a second in every job.
        self._table = pq.ParquetFile(path / ROWS).read()
        if self._table.num_rows != self.rows:
            raise self._broken(path / ROWS, f"has {self._table.num_rows} rows, but the manifest has {self.rows}")

    @property
    def computed(self) -> list[str]:
        """Formats of adapters whose factors are computed from other tensors: they have no factor view."""
        return list(self.manifest.source.get("computed", ()))

    def block(self, name: str) -> np.ndarray:
        """The factor `name` of all adapters, (rows, …) float32, memory-mapped."""
        values: np.ndarray = np.load(self._files[name], mmap_mode="r")
        return values

    def product(self, module: Module | str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """up (rows, out, rank) and down (rows, rank, in), memory-mapped float32, and α/r (rows,) float64."""
        name = module if isinstance(module, str) else module.name
        return self.block(name + UP), self.block(name + DOWN), self._scales[:, self._position[name]]

    def table(self) -> pa.Table:
        """One row per adapter; columns as in `adapter_rows`."""
        return self._table

    @property
    def labels(self) -> np.ndarray:
        """(rows,) int64: indices into `classes`."""
        return self._column("category_label")

    @property
    def groups(self) -> np.ndarray:
        """(rows,) int64: adapters that share a training image share a group."""
        return self._column("group")

    def verify(self) -> None:
        """Compares every file with its hash. Raises UserError naming the first that differs."""
        for block in self.blocks:
            if _sha256_of(self.block(block.name)) != block.sha256:
                raise self._broken(self._files[block.name], "does not match its hash")
        for name, sha256 in ((SCALES, self.manifest.scales_sha256), (ROWS, self.manifest.rows_sha256)):
            if _sha256_of((self.path / name).read_bytes()) != sha256:
                raise self._broken(self.path / name, "does not match its hash")

    def _column(self, name: str) -> np.ndarray:
        return np.array(self._table[name].to_pylist(), dtype=np.int64)  # to_numpy would import pandas, for 0.3 s

    def _check(self, file: Path, shape: tuple[int, ...], dtype: type[np.floating]) -> None:
        """Checks the dtype and shape of `file`. Mapping it makes numpy compare its header with its size."""
        try:
            values = np.load(file, mmap_mode="r")
        except FileNotFoundError:
            raise self._broken(file, "is missing") from None
        except (ValueError, EOFError) as error:
            raise UserError(
                f"{file}: is truncated or corrupt ({error}); delete {self.path} to have it rebuilt"
            ) from None
        if values.shape != shape or values.dtype != dtype:
            raise self._broken(file, f"is {values.dtype} {values.shape}, which is not what the manifest says")

    def _broken(self, file: Path, fault: str) -> UserError:
        return UserError(f"{file}: {fault}; delete {self.path} to have it rebuilt")


def why_no_layers(store: AdapterStore, view: str, layers: str) -> str:
    """Why the features of `view` have no layers in the layer set `layers`."""
    if view == "factor" and (computed := store.computed):
        return f"the adapters have no factor view: B and A of {', '.join(computed)} are computed, not stored"
    return why_empty([module.name for module in store.modules], layers)


class StoreWriter:
    """Writes a store to `path`, row by row. It appears whole at the end of the `with` block or not at all.

    shapes: factor name → shape of one adapter's matrix; place: the origin of the rows, for messages. Memory does not
    grow with the rows.
    """

    def __init__(self, path: Path, shapes: Mapping[str, Shape], *, place: str) -> None:
        self.modules = pair_modules(shapes, place)
        self._names = [module.name + suffix for module in self.modules for suffix in (DOWN, UP)]
        self._shapes = {name: (int(shapes[name][0]), int(shapes[name][1])) for name in self._names}
        self._place, self._whole = place, atomic(path)
        self._hashes = {name: hashlib.sha256() for name in self._names}
        self._files = {name: Path("blocks", f"{index:03d}.npy") for index, name in enumerate(self._names)}
        self._finished = False
        self.rows = 0

    def __enter__(self) -> Self:
        self._partial = self._whole.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._finished:
            unfinished = RuntimeError(f"{self._place}: the store was closed before finish()")
            self._whole.__exit__(RuntimeError, unfinished, None)
            raise unfinished
        self._whole.__exit__(kind, error, trace)

    def append(self, values: Mapping[str, np.ndarray]) -> None:
        """Adds n rows. values: factor name → (n, …). Raises UserError naming the row and factor of a NaN or infinity,
        or a factor that is missing or has another shape."""
        self._check_names(values)
        count = len(values[self._names[0]])
        if self.rows == 0:
            self._write_headers()
        for name in self._names:
            if values[name].shape != (count, *self._shapes[name]):
                raise UserError(
                    f"{self._place}: {name} has shape {values[name].shape[1:]} in rows {self.rows} to"
                    f" {self.rows + count - 1}, {self._shapes[name]} before; all adapters must have the same shapes"
                )
            block = single_precision(values[name])
            if (row := first_not_finite(block)) is not None:
                raise UserError(
                    f"{self._place}: row {self.rows + row}, {name}: NaN or infinity (in float32); remove that adapter"
                )
            self._hashes[name].update(block.data)
            with (self._partial / self._files[name]).open("ab") as stream:
                stream.write(block.data)
        self.rows += count

    def finish(
        self,
        table: pa.Table,
        *,
        classes: Sequence[str],
        source: Mapping[str, Any],
        scales: np.ndarray | None = None,
        skipped: Sequence[SkippedAdapter] = (),
    ) -> None:
        """Writes table, scales and manifest. table: see `adapter_rows`; scales: (rows, modules), columns in the order
        of `modules`, None for 1 everywhere."""
        scales = np.ones((self.rows, len(self.modules))) if scales is None else np.asarray(scales, dtype=np.float64)
        if table.num_rows != self.rows or scales.shape != (self.rows, len(self.modules)):
            raise ValueError(f"{self.rows} rows written, table of {table.num_rows}, scales of {scales.shape}")
        if not np.isfinite(scales).all():
            raise UserError(f"{self._place}: α/r of row {int(np.argwhere(~np.isfinite(scales))[0, 0])} is not finite")
        self._write_headers()
        np.save(self._partial / SCALES, scales)
        pq.write_table(table, self._partial / ROWS)
        blocks = [
            Block(
                name=name,
                file=self._files[name].as_posix(),
                shape=(self.rows, *self._shapes[name]),
                sha256=self._hashes[name].hexdigest(),
            )
            for name in self._names
        ]
        Manifest(
            rows=self.rows,
            classes=list(classes),
            source=dict(source),
            modules=self.modules,
            blocks=blocks,
            scales_sha256=_sha256_of((self._partial / SCALES).read_bytes()),
            rows_sha256=_sha256_of((self._partial / ROWS).read_bytes()),
            skipped=list(skipped),
        ).write(self._partial / MANIFEST)
        self._finished = True

    def _check_names(self, values: Mapping[str, np.ndarray]) -> None:
        if different := set(self._names) ^ set(values):
            name = min(different)
            fault = "appears" if name in values else "is missing"
            raise UserError(f"{self._place}: {name} {fault} from row {self.rows} on; all must have the same factors")

    def _write_headers(self) -> None:
        """Writes the blocks' headers with the current row count; numpy pads them, so that a larger count fits later."""
        (self._partial / "blocks").mkdir(parents=True, exist_ok=True)
        for name, file in self._files.items():
            header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, *self._shapes[name])}
            path = self._partial / file
            with path.open("r+b" if path.exists() else "wb") as stream:
                npy.write_array_header_1_0(stream, header)


def pair_modules(shapes: Mapping[str, Shape], place: str) -> list[Module]:
    """The modules of the factors in `shapes`, in natural order of their names.

    Raises UserError when there are none, or when a factor lacks its other half or the two have different ranks.
    """
    if not shapes:
        raise UserError(f"{place}: holds no LoRA factors (<module>{DOWN} and <module>{UP})")
    modules = []
    for name in sorted({split_factor(factor)[0] for factor in shapes}, key=natural_order):
        for suffix, other in ((DOWN, UP), (UP, DOWN)):
            if name + suffix not in shapes:
                raise UserError(f"{place}: {name}{other} has no {name}{suffix} beside it; a module needs both factors")
        (rank, width), (height, up_rank) = shapes[name + DOWN], shapes[name + UP]
        if rank != up_rank or 0 in (rank, width, height):
            raise UserError(
                f"{place}: {name}: down is {rank}×{width} and up {height}×{up_rank}; they must be r×in and out×r"
            )
        modules.append(Module(name=name, rank=int(rank), in_features=int(width), out_features=int(height)))
    return modules


def single_precision(values: np.ndarray) -> np.ndarray:
    """`values` as contiguous little-endian float32; values out of range become infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype="<f4")


def first_not_finite(values: np.ndarray) -> int | None:
    """The first index on the leading axis with a NaN or an infinity; None when everything is finite."""
    finite = np.isfinite(values)
    return None if finite.all() else int(np.argwhere(~finite)[0, 0])


def _sha256_of(values: Any) -> str:
    return hashlib.sha256(values).hexdigest()
