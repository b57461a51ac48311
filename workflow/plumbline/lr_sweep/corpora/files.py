"""UTF-8 text files, found by globs."""

import codecs
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.plan.globs import matching
from plumbline.lr_sweep.corpora.interface import Document, Source, within
from plumbline.lr_sweep.settings import CorpusSettings

LONG_BYTES = 32 * 2**10
"""A document this long ends at its next blank line, so that a long file can be split and streamed."""
LONGEST_BYTES = 4 * LONG_BYTES
"""A document this long ends even without a blank line."""
SEPARATOR = "<|endoftext|>"


def load(settings: CorpusSettings) -> Source:
    """The matching files in the order of their names, one document each; a long file becomes several.

    A line `<|endoftext|>` ends a document as well. Raises UserError when a glob matches nothing and, while reading,
    for a file without text or with bytes that are not text.
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
    """Lines of the file, very long ones in pieces. Raises UserError naming the first byte that is not text."""
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
    """`data` as text with \\n line ends. begin: offset in the file of the first byte that is not decoded yet."""
    try:
        text = decoder.decode(data, final)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {begin + error.start} is not valid UTF-8 ({error.reason}); {_FIX}") from None
    if "\0" in text:
        zero = begin + len(text[: text.index("\0")].encode())
        raise UserError(f"{path}: byte {zero} is zero, so this is not a text file; {_FIX}")
    return text.replace("\r\n", "\n")


_FIX = "convert it to UTF-8 or remove it from lr_sweep.corpus.files"
