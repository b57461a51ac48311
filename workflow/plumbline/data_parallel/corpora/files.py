"""Sentence pairs from the user's files: JSON lines, tab-separated lines, or two parallel text files."""

from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path

import datasets

from plumbline.core.errors import UserError, one_line
from plumbline.data_parallel.corpora.hub import _sides
from plumbline.data_parallel.corpora.interface import Pair, Source
from plumbline.data_parallel.settings import CorpusSettings, HubCorpus

JSON_LINES = (".json", ".jsonl")


def load(settings: CorpusSettings) -> Source:
    """The first pairs of each split's files, as many as `limits` says. Line ends and a byte-order mark are dropped.

    Raises UserError for a file that cannot be read, for a line without both sides, and for sides of unequal length.
    """
    files, limits = settings.files, settings.limits.model_dump()
    named = {"train": files.train, "validation": files.validation, "test": files.test}

    def pairs() -> Iterator[Pair]:
        for split, paths in named.items():
            for source, target in islice(_pairs([Path(path) for path in paths], files.names), limits[split]):
                yield Pair(split, source, target)

    return Source(described={"kind": "files", **files.model_dump(mode="json")}, pairs=pairs())


def _pairs(paths: list[Path], names: HubCorpus) -> Iterator[tuple[str, str]]:
    if len(paths) == 2:
        yield from _parallel(*paths)
    elif paths[0].suffix in JSON_LINES:
        try:
            rows = datasets.load_dataset("json", data_files=str(paths[0]), split="train", streaming=True)
            for number, row in enumerate(rows):
                yield _sides(row, names, f"{paths[0]}, row {number}")
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            raise UserError(f"{paths[0]}: cannot be read as JSON lines: {one_line(error)}") from error
    else:
        for number, line in enumerate(_lines(paths[0]), 1):
            columns = line.split("\t")
            if len(columns) == 1:
                raise UserError(f"{paths[0]}, line {number}: has no tab between German and English; add it")
            if len(columns) > 2:
                raise UserError(f"{paths[0]}, line {number}: has {len(columns)} columns; keep German and English alone")
            yield columns[0], columns[1]


def _parallel(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    for number, (german, english) in enumerate(zip_longest(_lines(source), _lines(target)), 1):
        if german is None or english is None:
            shorter, longer = (source, target) if german is None else (target, source)
            raise UserError(
                f"{shorter}: ends before line {number}, which {longer} has; a translation stands on the same line"
            )
        yield german, english


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline=None) as stream:
            for line in stream:
                yield line.rstrip("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not valid UTF-8 ({error.reason}); convert it") from None
