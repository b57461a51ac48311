"""A CSV of labels, as programs and spreadsheets write it: `adapter`, `label`, perhaps `num_images` and `image_ids`.

Separated by commas, semicolons or tabs; in UTF-8, or UTF-16 with its mark; headings in any case, with blanks around.
"""

import codecs
import csv
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plumbline.ablation.formats.folder import Candidate, broken_link, is_pickle, listed
from plumbline.ablation.formats.tensors import CONVERT
from plumbline.core.errors import UserError
from plumbline.core.files import is_lfs_pointer

REQUIRED = ("adapter", "label")
EXACT = 2**53
"""Whole numbers up to here survive being written as floating-point ones."""


@dataclass(frozen=True, kw_only=True)
class Labelled(Candidate):
    """An adapter with what a CSV says of it."""

    num_images: int | None = None
    image_ids: tuple[int, ...] = ()


def labelled(root: Path, labels: Path) -> list[Labelled]:
    """The adapters listed in the CSV `labels`, in its order. Raises UserError naming the wrong line."""
    adapters = [_adapter(root, line, place) for line, place in _lines(labels)]
    if not adapters:
        raise UserError(f"{labels}: lists no adapters")
    files = Counter(os.path.normpath(adapter.file) for adapter in adapters)
    if twice := [file for file, count in files.items() if count > 1]:
        raise UserError(f"{labels}: lists {twice[0]} more than once; keep one line")
    return adapters


def _lines(labels: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Each line that is not blank, by its headings, and its place."""
    try:
        text = _decoded(labels.read_bytes())
        separator = _separator(text.partition("\n")[0])
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        headings = [heading.strip().casefold() for heading in next(reader, [])]
        _check(headings, labels)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                place = f"{labels}, line {reader.line_num}"
                if any(cell.strip() for cell in cells[len(headings) :]):
                    raise UserError(f"{place}: has more cells than headings; put cells with {separator!r} in quotes")
                yield dict(zip(headings, (cell.strip() for cell in cells), strict=False)), place
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"ablation.adapters.labels: {labels} cannot be read as a CSV in UTF-8: {error}") from None


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def _separator(heading: str) -> str:
    """The separator with which the first line has the required headings; else the one that it has most of."""
    kinds = (",", ";", "\t")
    for separator in kinds:
        if set(REQUIRED) <= {cell.strip().strip('"').strip().casefold() for cell in heading.split(separator)}:
            return separator
    return max(kinds, key=heading.count)


def _check(headings: list[str], labels: Path) -> None:
    if is_lfs_pointer(labels):
        raise UserError(f"{labels}: is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository")
    if missing := [name for name in REQUIRED if name not in headings]:
        there = ", ".join(filter(None, headings)) or "none"
        raise UserError(
            f"{labels}: has no column {missing[0]} (it has: {there}); `adapter` and `label` are required in line 1"
        )
    counts = Counter(filter(None, headings))
    if twice := [heading for heading, count in counts.items() if count > 1]:
        raise UserError(f"{labels}: has two columns {twice[0]}; rename or remove one")


def _adapter(root: Path, line: dict[str, str], place: str) -> Labelled:
    name, label = line.get("adapter", ""), unicodedata.normalize("NFC", line.get("label", ""))
    if not name or not label:
        raise UserError(f"{place}: `adapter` or `label` is empty")
    if not Path(os.path.normpath(root / name.replace("\\", "/"))).is_relative_to(os.path.normpath(root)):
        raise UserError(f"{place}: {name} is outside {root}; only files inside it are read")
    if (file := listed(root, name)) is None:
        raise UserError(f"{place}: {name} is not a file in {root}, nor a folder with one .safetensors file")
    ids = [_whole(image, "image_ids", place) for image in line.get("image_ids", "").split()]
    images = line.get("num_images", "")
    count = _whole(images, "num_images", place) if images else len(ids) or None
    fault = CONVERT if is_pickle(file) else broken_link(file)
    return Labelled(name=name, label=label, file=file, fault=fault, num_images=count, image_ids=tuple(ids))


def _whole(text: str, column: str, place: str) -> int:
    """The whole number `text`, which a spreadsheet may have written as 12.0."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = 0.5
    if not number.is_integer():
        raise UserError(f"{place}: {column} must hold whole numbers, not {text!r}; separate several by spaces")
    if abs(number) >= EXACT:
        raise UserError(f"{place}: {column}: {text} has lost its last digits; write it as a whole number or as text")
    return int(number)
