"""Source `adapters`: a folder of `.safetensors` files, labelled by sub-folder or by a CSV.

Sub-folders: `<class>/<adapter>.safetensors` or `<class>/<adapter>/`, the latter with PEFT's `adapter_config.json`. CSV:
columns `adapter` (path in the folder) and `label`, and optionally `num_images` and `image_ids` (numbers separated by
spaces).
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from plumbline.ablation.data.adapter_rows import AdapterRows
from plumbline.ablation.data.manifest import SkippedAdapter
from plumbline.ablation.data.store import StoreWriter
from plumbline.ablation.formats.adapter_file import Factors, difference, outline, read_factors
from plumbline.ablation.formats.base import Base
from plumbline.ablation.formats.folder import Candidate, candidates, is_read
from plumbline.ablation.formats.labels import Labelled, labelled
from plumbline.ablation.formats.tensors import BadAdapter
from plumbline.core.errors import UserError
from plumbline.core.files import visible_files
from plumbline.core.run.progress import track

log = logging.getLogger("plumbline")

CHUNK_BYTES = 64 * 2**20
"""Size of the factors that are held in memory before they are written."""
Chunk = list[tuple[Candidate, Factors]]


def load(
    output: Path,
    *,
    path: Path | str,
    labels: Path | str | None = None,
    on_bad_adapter: Literal["fail", "skip"] = "fail",
    assume_alpha: Literal["rank"] | float | None = None,
    checkpoint: str | None = None,
    base: Path | str | None = None,
) -> None:
    """Writes the adapters in the folder `path` to a store at `output`. labels: a CSV; None labels by sub-folder.

    All must have the same layers and shapes. One that differs from most, or cannot be read, is an error or, with
    `on_bad_adapter: skip`, is left out and listed in the manifest. Text encoders' layers are ignored. Where α is stated
    nowhere it is `assume_alpha`; without that, α/r is 1 if no adapter states α, and an error if some do. The manifest
    counts all of these. checkpoint: which to read of a run's (see `formats.folder`); base: the base model's weights.
    """
    path, labels = Path(path), None if labels is None else Path(labels)
    if not path.is_dir():
        raise UserError(f"ablation.adapters.path: {path} is not a directory")
    adapters: Sequence[Candidate] = candidates(path, checkpoint) if labels is None else labelled(path, labels)
    source: dict[str, Any] = {"kind": "adapters", "path": str(path), "on_bad_adapter": on_bad_adapter}
    source |= {"labels": None if labels is None else str(labels), "checkpoint": checkpoint}
    source |= {"assume_alpha": assume_alpha, "base": None if base is None else str(base)}
    if labels is not None:
        here = {file for file in visible_files(path) if is_read(file)}
        source["files_not_listed"] = len(here - {adapter.file for adapter in adapters})
    weights = None if base is None else Base(Path(base))
    _Import(path, skip=on_bad_adapter == "skip", base=weights, assumed=assume_alpha).write(output, adapters, source)


class _Import:
    """One import, with what it skipped and counted for the manifest."""

    def __init__(self, path: Path, *, skip: bool, base: Base | None, assumed: Literal["rank"] | float | None) -> None:
        self.path, self.skip, self.base, self.assumed = path, skip, base, assumed
        self.skipped: list[SkippedAdapter] = []
        self.text_encoder_keys = 0
        self.computed: set[str] = set()
        self.unknown: list[Candidate] = []
        """Adapters that do not state α for all their layers."""

    def write(self, output: Path, adapters: Sequence[Candidate], source: dict[str, Any]) -> None:
        """Writes what can be read of `adapters` to a store at `output`. source: what the manifest says of them."""
        chunks = self._chunks(self._with_common_layout(adapters))
        if (first := next(chunks, None)) is None:
            raise UserError(f"{self.path}: none of its {len(adapters)} adapters can be read; {self._first_reason()}")
        shapes = {name: (values.shape[0], values.shape[1]) for name, values in first[0][1].factors.items()}
        rows, scales = AdapterRows(), []
        known_classes = sorted({_label(adapter) for adapter in adapters})
        numbers = {label: number for number, label in enumerate(known_classes)}
        with StoreWriter(output, shapes, place=str(self.path)) as writer:
            modules = [module.name for module in writer.modules]
            for chunk in chain([first], chunks):
                writer.append({name: np.stack([read.factors[name] for _, read in chunk]) for name in shapes})
                for adapter, read in chunk:
                    _add_row(rows, adapter, numbers)
                    scales.append([read.scales[module] for module in modules])
                    self.unknown += [] if read.states_alpha else [adapter]
            self._check_alpha(writer.rows)
            lost = [label for label in known_classes if numbers[label] not in set(rows.labels)]
            table, classes = rows.table(place=str(self.path), rank=max(module.rank for module in writer.modules))
            source |= {
                "text_encoder_keys_left_out": self.text_encoder_keys,
                "adapters_without_alpha": len(self.unknown),
                "classes_lost": lost,
                "computed": sorted(self.computed),
            }
            writer.finish(table, classes=classes, source=source, scales=np.array(scales), skipped=self.skipped)
        for label in lost:
            log.warning("class %s is lost: none of its adapters can be read", label)

    def _with_common_layout(self, adapters: Sequence[Candidate]) -> list[Candidate]:
        """The adapters with the most common layout. Only headers are read."""
        outlines = {}
        for adapter in adapters:
            try:
                if adapter.fault:
                    raise BadAdapter(adapter.fault, fix="; or set `on_bad_adapter: skip` to leave it out")
                outlines[adapter.name] = outline(adapter.file)
            except BadAdapter as error:
                self._refuse(adapter, error)
        if not outlines:
            raise UserError(f"{self.path}: none of its {len(adapters)} adapters can be read; {self._first_reason()}")
        layout = Counter(found.layout for found in outlines.values()).most_common(1)[0][0]
        kept = []
        for adapter in adapters:
            if (found := outlines.get(adapter.name)) is None:
                continue
            if found.layout == layout:
                kept.append(adapter)
                self.text_encoder_keys += found.text_encoder_keys
            else:
                self._refuse(adapter, BadAdapter(f"differs from most: {difference(found.layout, layout)}"))
        return kept

    def _chunks(self, adapters: list[Candidate]) -> Iterator[Chunk]:
        """The adapters with their factors, in chunks of about `CHUNK_BYTES` and at least one adapter."""
        chunk: Chunk = []
        size = 0
        for adapter in track(adapters, len(adapters), "adapters"):
            try:
                read = read_factors(adapter.file, self.path, self.base, self.assumed or "rank")
            except BadAdapter as error:
                self._refuse(adapter, error)
                continue
            self.computed |= read.computed
            chunk.append((adapter, read))
            size += sum(values.nbytes for values in read.factors.values())
            if size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def _check_alpha(self, rows: int) -> None:
        """Raises UserError where some adapters state α and others do not, since ΔW would differ by that alone."""
        if self.assumed is None and 0 < len(self.unknown) < rows:
            raise UserError(
                f"{self.path}: {rows - len(self.unknown)} adapters state α and {len(self.unknown)} do not, among them"
                f" {self.unknown[0].name}; set ablation.adapters.assume_alpha to what theirs was: rank (α/r = 1), or a"
                " number"
            )

    def _first_reason(self) -> str:
        return f"{self.skipped[0].adapter} {self.skipped[0].reason}" if self.skipped else "it is empty"

    def _refuse(self, adapter: Candidate, reason: BadAdapter) -> None:
        """Raises UserError, or lists the adapter as skipped."""
        if not self.skip:
            raise UserError(f"{adapter.file}: {reason}{reason.fix}")
        log.warning("%s skipped: %s", adapter.file, reason)
        self.skipped.append(SkippedAdapter(adapter=adapter.name, reason=str(reason)))


def _label(adapter: Candidate) -> str:
    """The adapter's class, with its accents in one normal form, so that a Mac's spelling is not another class."""
    return unicodedata.normalize("NFC", adapter.label)


def _add_row(rows: AdapterRows, adapter: Candidate, numbers: dict[str, int]) -> None:
    rows.labels.append(numbers[_label(adapter)])
    rows.names.append(_label(adapter))
    rows.adapters.append(adapter.name)
    rows.num_images.append(adapter.num_images if isinstance(adapter, Labelled) else None)
    rows.image_ids.append(list(adapter.image_ids) if isinstance(adapter, Labelled) else [])
