"""Source `adapters`: a folder of `.safetensors` files, labelled by sub-folder or by a CSV.

Sub-folders: `<class>/<adapter>.safetensors` or `<class>/<adapter>/<any name>.safetensors`, the latter with PEFT's
`adapter_config.json` beside it. CSV: columns `adapter` (path in the folder) and `label`, and optionally `num_images`
and `image_ids` (numbers separated by spaces).
"""

import csv
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from plumbline.ablation.data.adapter_files import (
    BadAdapter,
    Factors,
    Layout,
    difference,
    outline,
    read_factors,
)
from plumbline.ablation.data.adapter_rows import AdapterRows
from plumbline.ablation.data.manifest import SkippedAdapter
from plumbline.ablation.data.store import StoreWriter
from plumbline.core.errors import UserError
from plumbline.core.run.progress import track

log = logging.getLogger("plumbline")

CHUNK_BYTES = 64 * 2**20
"""Size of the factors that are held in memory before they are written."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter. name: its path in the folder; label: its class."""

    name: str
    file: Path
    label: str
    num_images: int | None = None
    image_ids: tuple[int, ...] = ()


def load(
    output: Path,
    *,
    path: Path | str,
    labels: Path | str | None = None,
    on_bad_adapter: Literal["fail", "skip"] = "fail",
) -> None:
    """Writes the adapters in the folder `path` to a store at `output`. labels: a CSV; None labels by sub-folder.

    All must have the same factors and shapes. One that differs from most, or cannot be read, is an error or, with
    `on_bad_adapter: skip`, is left out and listed in the manifest. Text encoders' factors are ignored. α/r is 1 where
    neither the file nor a configuration beside it states α. The manifest counts both.
    """
    path, labels = Path(path), None if labels is None else Path(labels)
    if not path.is_dir():
        raise UserError(f"ablation.adapters.path: {path} is not a directory")
    adapters = labelled_by_folder(path) if labels is None else labelled_by_csv(path, labels)
    _Import(path, skip=on_bad_adapter == "skip").write(output, adapters, labels)


def labelled_by_folder(path: Path) -> list[Adapter]:
    """The adapters under `path` in the order of their names, labelled by their top-level folder."""
    adapters: dict[str, Adapter] = {}
    for file in sorted(path.rglob("*.safetensors")):
        parts = file.relative_to(path).parts
        if len(parts) not in (2, 3):
            raise UserError(
                f"{file}: has no class; move it to <class>/<adapter>.safetensors or <class>/<adapter>/, or use a CSV"
            )
        name = "/".join(parts[:2])
        if name in adapters:
            raise UserError(f"{path / name}: holds several .safetensors files; keep one per adapter, or use a CSV")
        adapters[name] = Adapter(name=name, file=_inside(path, "/".join(parts), str(path)), label=parts[0])
    if not adapters:
        raise UserError(f"{path}: holds no .safetensors files")
    return list(adapters.values())


def labelled_by_csv(path: Path, labels: Path) -> list[Adapter]:
    """The adapters listed in the CSV `labels`, in its order. Raises UserError naming the wrong line."""
    try:
        with labels.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.DictReader(stream)
            if missing := {"adapter", "label"} - set(lines.fieldnames or ()):
                raise UserError(f"{labels}: has no column {min(missing)}; `adapter` and `label` are required")
            adapters = [_from_line(path, line, f"{labels}, line {lines.line_num}") for line in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"ablation.adapters.labels: {labels} cannot be read as a CSV in UTF-8: {error}") from None
    if not adapters:
        raise UserError(f"{labels}: lists no adapters")
    files = Counter(adapter.file.resolve() for adapter in adapters)
    if twice := [file for file, count in files.items() if count > 1]:
        raise UserError(f"{labels}: lists {twice[0]} more than once; keep one line")
    return adapters


def _from_line(path: Path, line: dict[str, str | None], place: str) -> Adapter:
    name, label = (line["adapter"] or "").strip(), (line["label"] or "").strip()
    if not name or not label:
        raise UserError(f"{place}: `adapter` or `label` is empty")
    file = _inside(path, name, place)
    if not file.is_file():
        raise UserError(f"{place}: {name} is not a file in {path}")
    try:
        images = (line.get("num_images") or "").strip()
        ids = tuple(int(image) for image in (line.get("image_ids") or "").split())
        count = int(images) if images else len(ids) or None
    except ValueError as error:
        raise UserError(f"{place}: num_images and image_ids must be whole numbers: {error}") from None
    return Adapter(name=name, file=file, label=label, num_images=count, image_ids=ids)


def _inside(path: Path, name: str, place: str) -> Path:
    file = path / name
    if not file.resolve().is_relative_to(path.resolve()):
        raise UserError(f"{place}: {name} is outside {path}; only files inside it are read")
    return file


class _Import:
    """One import, with what it skipped and counted for the manifest."""

    def __init__(self, path: Path, *, skip: bool) -> None:
        self.path, self.skip = path, skip
        self.skipped: list[SkippedAdapter] = []
        self.text_encoder_keys = self.unknown_scales = 0

    def write(self, output: Path, adapters: list[Adapter], labels: Path | None) -> None:
        kept, layout = self._with_common_layout(adapters)
        rows, scales = AdapterRows(), []
        numbers = {label: number for number, label in enumerate(sorted({adapter.label for adapter in adapters}))}
        with StoreWriter(output, dict(layout), place=str(self.path)) as writer:
            modules = [module.name for module in writer.modules]
            for chunk in self._chunks(kept, layout):
                writer.append({name: np.stack([read.factors[name] for _, read in chunk]) for name, _ in layout})
                for adapter, read in chunk:
                    rows.labels.append(numbers[adapter.label])
                    rows.names.append(adapter.label)
                    rows.adapters.append(adapter.name)
                    rows.num_images.append(adapter.num_images)
                    rows.image_ids.append(list(adapter.image_ids))
                    scales.append([read.scales.get(module, 1.0) for module in modules])
                    self.unknown_scales += any(module not in read.scales for module in modules)
            table, classes = rows.table(place=str(self.path), rank=max(module.rank for module in writer.modules))
            source = {
                "kind": "adapters",
                "path": str(self.path),
                "labels": None if labels is None else str(labels),
                "on_bad_adapter": "skip" if self.skip else "fail",
                "text_encoder_keys_left_out": self.text_encoder_keys,
                "adapters_without_alpha": self.unknown_scales,
            }
            writer.finish(table, classes=classes, source=source, scales=np.array(scales), skipped=self.skipped)

    def _with_common_layout(self, adapters: list[Adapter]) -> tuple[list[Adapter], Layout]:
        """The adapters with the most common layout, and that layout. Only headers are read."""
        outlines = {}
        for adapter in adapters:
            try:
                outlines[adapter.name] = outline(adapter.file)
            except BadAdapter as error:
                self._refuse(adapter, str(error))
        if not outlines:
            raise UserError(f"{self.path}: none of its {len(adapters)} adapters can be read")
        layout = Counter(found.layout for found in outlines.values()).most_common(1)[0][0]
        kept = []
        for adapter in adapters:
            if (found := outlines.get(adapter.name)) is None:
                continue
            if found.layout == layout:
                kept.append(adapter)
                self.text_encoder_keys += found.text_encoder_keys
            else:
                self._refuse(adapter, f"differs from most: {difference(found.layout, layout)}")
        return kept, layout

    def _chunks(self, adapters: list[Adapter], layout: Layout) -> Iterator[list[tuple[Adapter, Factors]]]:
        """The adapters with their factors, in chunks of about `CHUNK_BYTES` and at least one adapter."""
        size = 4 * sum(rows * columns for _, (rows, columns) in layout)
        chunk: list[tuple[Adapter, Factors]] = []
        for adapter in track(adapters, len(adapters), "adapters"):
            try:
                chunk.append((adapter, read_factors(adapter.file)))
            except BadAdapter as error:
                self._refuse(adapter, str(error))
            if len(chunk) * size >= CHUNK_BYTES:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _refuse(self, adapter: Adapter, reason: str) -> None:
        """Raises UserError, or lists the adapter as skipped."""
        if not self.skip:
            raise UserError(f"{adapter.file}: {reason}; fix or remove it, or set `on_bad_adapter: skip`")
        log.warning("%s skipped: %s", adapter.file, reason)
        self.skipped.append(SkippedAdapter(adapter=adapter.name, reason=reason))
