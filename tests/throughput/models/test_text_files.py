"""Text files as windows: in pieces of bounded size, and each line of JSON lines a document."""

import json
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

from plumbline.core.errors import UserError
from plumbline.throughput.models.text import PIECE_CHARACTERS, file_documents, windows
from plumbline.throughput.models.tokenizer import read_tokenizer
from throughput.small_models import documents, write_tokenizer


def test_pieces_of_a_long_file_have_all_its_text_and_the_same_tokens(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    encode = read_tokenizer(tmp_path).encode
    text = "\n\n".join(documents()) * (3 * PIECE_CHARACTERS // sum(map(len, documents())) + 1)
    path = tmp_path / "long.txt"
    path.write_text(text)
    pieces = list(file_documents([path], "here"))
    assert len(pieces) > 2
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [token for piece in pieces for token in encode(piece.text)] == encode(text)


@pytest.mark.parametrize("line", ["word " * 20 + "\n", "x"])
def test_windows_from_a_large_file_take_memory_of_a_piece_not_of_the_file(tmp_path: Path, line: str) -> None:
    write_tokenizer(tmp_path)
    path = tmp_path / "large.txt"
    path.write_text(line * (64 * PIECE_CHARACTERS // len(line)))
    tokenizer = read_tokenizer(tmp_path)
    tracemalloc.start()
    found = windows(file_documents([path], "here"), tokenizer, 4, 16, "here")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == (4, 16)
    assert peak < path.stat().st_size


def test_json_lines_are_documents(tmp_path: Path) -> None:
    texts = ["first\nwith two lines", "second", "third"]
    rows = [{"text": texts[0], "id": 1}, texts[1], {"text": texts[2]}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = list(file_documents([tmp_path / "a.jsonl"], "here"))
    assert [piece.text for piece in found] == texts
    assert all(piece.ends for piece in found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"content": "a"}', r"a\.jsonl: line 2: has no text under the key 'text' \(it has content\)"),
        ('{"text": 3}', r"line 2: has no text under the key 'text'"),
        ("[1]", "line 2: has no text .*is not an object"),
        ("{", "line 2: is not valid JSON"),
    ],
)
def test_json_lines_without_text_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        list(file_documents([tmp_path / "a.jsonl"], "here"))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello\r\nthere")
    assert [piece.text for piece in islice(file_documents([tmp_path / "a.txt"], "here"), 2)] == ["hello\nthere"]
