"""Text files: UTF-8, found by globs."""

import codecs
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.plan.globs import matching
from plumbline.lr_sweep.corpora.interface import Document, Source, within
from plumbline.lr_sweep.settings import CorpusSettings

LONG_BYTES = 32 * 2**10
"""A document that has grown to this ends at its next blank line, so that one long file can be split, and streamed."""
LONGEST_BYTES = 4 * LONG_BYTES
"""A document that has grown to this ends, blank line or not."""
SEPARATOR = "<|endoftext|>"


def load(settings: CorpusSettings) -> Source:
    """The matching files in the order of their names, a document each; a long one, several.

    A line `<|endoftext|>` ends a document too, as in files that hold many. Raises UserError when a glob matches
    nothing, and, while reading, for a file without text or with bytes that are no text.
    """
    paths = matching(settings.files, "lr_sweep.corpus.files")
    documents = within(chain.from_iterable(map(_documents, paths)), settings.limit_bytes)
    size = sum(path.stat().st_size for path in paths)
    return Source(described={"kind": "files", "files": settings.files}, documents=documents, expected_bytes=size)


def _documents(path: Path) -> Iterator[Document]:
    lines: list[str] = []
    size = count = 0
    for line in chain(_lines(path), [SEPARATOR]):
        ends = line.rstrip() == SEPARATOR
        if not ends:
            lines.append(line)
            size += len(line.encode())
            ends = size >= (LONG_BYTES if not line.strip() else LONGEST_BYTES)
        if ends:
            if text := "".join(lines).strip():
                yield Document(f"{path}#{count}", text)
                count += 1
            lines, size = [], 0
    if not count:
        raise UserError(f"{path}: is empty; remove it from lr_sweep.corpus.files or fill it")


def _lines(path: Path) -> Iterator[str]:
    """Lines of the file, a very long one in pieces. Raises UserError naming the first byte that is no text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with path.open("rb") as stream:
            while line := stream.readline(LONG_BYTES):
                begin = offset - len(decoder.getstate()[0])
                text = _decoded(decoder, line, path, begin)
                yield text.removeprefix("\ufeff") if offset == 0 else text
                offset += len(line)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    _decoded(decoder, b"", path, offset - len(decoder.getstate()[0]), final=True)


def _decoded(decoder: codecs.IncrementalDecoder, data: bytes, path: Path, begin: int, *, final: bool = False) -> str:
    """`data` as text with plain line ends. begin: offset in the file of the first byte not decoded yet."""
    try:
        text = decoder.decode(data, final)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {begin + error.start} is not valid UTF-8 ({error.reason}); {_WAY_OUT}") from None
    if "\0" in text:
        zero = begin + len(text[: text.index("\0")].encode())
        raise UserError(f"{path}: byte {zero} is a zero, so this is no text; {_WAY_OUT}")
    return text.replace("\r\n", "\n")


_WAY_OUT = "convert the file to UTF-8 text, or leave it out of lr_sweep.corpus.files"
