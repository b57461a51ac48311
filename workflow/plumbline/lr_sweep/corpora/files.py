"""UTF-8 text files, found by globs."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.plan.globs import matching
from plumbline.core.text.lines import JSON_LINES, json_texts, lines
from plumbline.lr_sweep.corpora.interface import Document, Source, within
from plumbline.lr_sweep.settings import CorpusSettings

LONG_BYTES = 32 * 2**10
"""A document this long ends at its next blank line, so that a long file can be split and streamed."""
LONGEST_BYTES = 4 * LONG_BYTES
"""A document this long ends even without a blank line."""
SEPARATOR = "<|endoftext|>"
KEY = "lr_sweep.corpus.files"


def load(settings: CorpusSettings) -> Source:
    """The matching files in the order of their names, one document each; a long file becomes several.

    A line `<|endoftext|>` ends a document as well; a file of JSON lines has a document per line. Raises UserError when
    a glob matches nothing and, while reading, for a file without text or with bytes that are not text.
    """
    paths = matching(settings.files, KEY)
    documents = within(chain.from_iterable(map(_documents, paths)), settings.limit_bytes)
    size = sum(path.stat().st_size for path in paths)
    return Source(described={"kind": "files", "files": settings.files}, documents=documents, expected_bytes=size)


def _documents(path: Path) -> Iterator[Document]:
    count = 0
    is_json = path.suffix in JSON_LINES
    streams = (text.splitlines(keepends=True) for text in json_texts(path, KEY)) if is_json else [lines(path, KEY)]
    for stream in streams:
        for part in _parts(stream):
            yield Document(f"{path}#{count}", part)
            count += 1
    if not count:
        raise UserError(f"{path}: is empty; remove it from {KEY} or fill it")


def _parts(found: Iterable[str]) -> Iterator[str]:
    """The documents in the lines `found`."""
    waiting: list[str] = []
    size = 0
    for line in chain(found, [SEPARATOR]):
        ends = line.rstrip() == SEPARATOR
        if not ends:
            waiting.append(line)
            size += len(line.encode())
            ends = size >= (LONG_BYTES if not line.strip() else LONGEST_BYTES)
        if ends:
            if text := "".join(waiting).strip():
                yield text
            waiting, size = [], 0
