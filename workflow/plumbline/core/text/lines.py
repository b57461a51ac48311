"""UTF-8 text files, streamed: their lines, and the texts in JSON lines."""

import codecs
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from plumbline.core.errors import UserError

PIECE_BYTES = 32 * 2**10
"""A longer line comes in pieces of this size."""
JSON_LINES = (".jsonl", ".ndjson")
TEXT_KEY = "text"


def lines(path: Path, key: str) -> Iterator[str]:
    """Lines of the file with their ends as \\n, very long ones in pieces; without a byte-order mark.

    key: the config key of the file, for messages. Raises UserError for a file that cannot be read, naming the first
    byte that is not text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with path.open("rb") as stream:
            while line := stream.readline(PIECE_BYTES):
                begin = offset - len(decoder.getstate()[0])
                text = _decoded(decoder, line, path, key, begin)
                yield text.removeprefix("\ufeff") if offset == 0 else text
                offset += len(line)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    _decoded(decoder, b"", path, key, offset - len(decoder.getstate()[0]), final=True)


def json_texts(path: Path, key: str) -> Iterator[str]:
    """The texts of a file with a JSON object per line, under `text`; or with a JSON string per line.

    Raises UserError for a line that is neither, and as `lines` does.
    """
    waiting: list[str] = []
    number = 1
    for piece in chain(lines(path, key), ["\n"]):
        waiting.append(piece)
        if not piece.endswith("\n"):
            continue
        if (line := "".join(waiting)).strip():
            yield _text(line, f"{path}: line {number}")
        waiting, number = [], number + 1


def _text(line: str, place: str) -> str:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: is not valid JSON ({error.msg}); write one JSON object per line") from None
    text = found.get(TEXT_KEY) if isinstance(found, dict) else found
    if not isinstance(text, str):
        has = f"it has {', '.join(map(str, found)) or 'no keys'}" if isinstance(found, dict) else "it is not an object"
        raise UserError(f"{place}: has no text under the key {TEXT_KEY!r} ({has}); rename the key that holds the text")
    return text


def _decoded(
    decoder: codecs.IncrementalDecoder, data: bytes, path: Path, key: str, begin: int, *, final: bool = False
) -> str:
    """`data` as text with \\n line ends. begin: offset in the file of the first byte that is not decoded yet."""
    try:
        text = decoder.decode(data, final)
    except UnicodeDecodeError as error:
        reason, at = error.reason, begin + error.start
        raise UserError(
            f"{path}: byte {at} is not valid UTF-8 ({reason}); convert it or remove it from {key}"
        ) from None
    if "\0" in text:
        zero = begin + len(text[: text.index("\0")].encode())
        raise UserError(f"{path}: byte {zero} is zero, so this is not a text file; convert it or remove it from {key}")
    return text.replace("\r\n", "\n")
