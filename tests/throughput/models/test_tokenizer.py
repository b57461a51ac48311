"""A tokenizer reads running text: what its file says about batches, sequence pairs and training does not apply."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from plumbline.core.errors import UserError
from plumbline.throughput.models.text import Piece, windows
from plumbline.throughput.models.tokenizer import read_tokenizer
from throughput.small_models import documents, write_tokenizer

BEGIN = "<s>"


def folder_with(
    folder: Path, change: Callable[[Tokenizer], object] = lambda _: None, settings: dict[str, object] | None = None
) -> Path:
    folder.mkdir(exist_ok=True)
    write_tokenizer(folder)
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens([BEGIN])
    change(tokenizer)
    tokenizer.save(str(path))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": BEGIN, **(settings or {})}))
    (folder / "config.json").write_text('{"eos_token_id": 0}')
    return folder


def add_beginning(tokenizer: Tokenizer) -> None:
    special = [(BEGIN, tokenizer.token_to_id(BEGIN))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=special)


def drop_merges(tokenizer: Tokenizer) -> None:
    tokenizer.model.dropout = 0.9


@pytest.mark.parametrize(
    "option",
    [
        lambda tokenizer: tokenizer.enable_padding(length=2000),
        lambda tokenizer: tokenizer.enable_padding(pad_to_multiple_of=64, direction="left"),
        lambda tokenizer: tokenizer.enable_truncation(max_length=5),
        lambda tokenizer: tokenizer.enable_truncation(max_length=5, direction="left"),
        drop_merges,
    ],
)
def test_stored_padding_truncation_and_sampling_do_not_apply(
    tmp_path: Path, option: Callable[[Tokenizer], None]
) -> None:
    text = "\n\n".join(documents()[:20])
    plain, changed = (
        read_tokenizer(folder_with(tmp_path / name, how)) for name, how in (("a", lambda _: None), ("b", option))
    )
    assert changed.encode(text) == plain.encode(text)
    assert len(plain.encode(text)) > 100


def test_a_tokenizer_that_transformers_reads_neither_pads_nor_cuts(tmp_path: Path) -> None:
    """GPT-2's older format: a vocabulary and merges, without tokenizer.json."""
    fast = read_tokenizer(folder_with(tmp_path))
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 8, "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    text = "\n\n".join(documents()[:20])
    assert read_tokenizer(tmp_path).encode(text) == fast.encode(text)


@pytest.mark.parametrize(
    ("adds", "settings", "wanted", "begins"),
    [
        (True, {}, "auto", True),
        (False, {}, "auto", False),
        (False, {"add_bos_token": True}, "auto", True),
        (True, {"add_bos_token": False}, "auto", False),
        (False, {}, "always", True),
        (True, {}, "never", False),
    ],
)
def test_windows_begin_as_the_tokenizer_begins_texts_or_as_asked(
    tmp_path: Path, adds: bool, settings: dict[str, object], wanted: str, begins: bool
) -> None:
    tokenizer = read_tokenizer(folder_with(tmp_path, add_beginning if adds else lambda _: None, settings))
    begin = tokenizer.beginning(wanted)  # type: ignore[arg-type]
    assert begin == ([tokenizer.names] if begins else [])
    pieces = [Piece(text, ends=True) for text in documents()]
    found = windows(pieces, tokenizer, 5, 16, "here", begin)
    bare = windows(pieces, tokenizer, 5, 16 - len(begin), "here")
    assert found.shape == (5, 16)
    assert found[:, len(begin) :].tolist() == bare.tolist()
    assert (found[:, 0] == tokenizer.names).all() == begins


def test_the_findings_say_how_windows_begin_unless_no_token_is_named(tmp_path: Path) -> None:
    adding = read_tokenizer(folder_with(tmp_path / "adding", add_beginning))
    assert "begins with token" in adding.note(adding.beginning("auto"))[0]
    assert "do not begin with the beginning-of-text token" in adding.note([])[0]
    same = read_tokenizer(folder_with(tmp_path / "same", settings={"bos_token": "<|endoftext|>"}))
    assert same.note(same.beginning("auto")) == []  # it ends each document, and so comes before the next


def test_always_needs_a_token(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(folder_with(tmp_path, settings={"bos_token": None}))
    with pytest.raises(UserError, match="beginning_of_text: always, but"):
        tokenizer.beginning("always")


@pytest.mark.parametrize(("name", "data"), [("tokenizer.model", b"\x0a\x05"), ("spiece.model", b"")])
def test_a_vocabulary_that_cannot_be_converted_says_what_to_install(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="pip install sentencepiece") as error:
        read_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
