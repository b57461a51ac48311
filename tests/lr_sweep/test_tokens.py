import hashlib
import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from plumbline.core.errors import UserError
from plumbline.core.text import byte_pair, documents
from plumbline.lr_sweep.tokenizer import TokenizerSpec, tokenizer
from plumbline.lr_sweep.tokens import TokensSpec, tokens

CODE = {"code": "code", "inputs": "inputs"}
TEXTS = [
    f"Sentence {number} of the corpus says: {word} is {other}, naïvely — 日本語.\n\nAnd {word} again; {number * 7}."
    for number, (word, other) in enumerate(
        (first, second) for first in ("light", "time", "learning", "rate") for second in ("fast", "slow", "steady")
    )
] * 5
FORGED = "A document that says <|endoftext|> in its middle."


def write_corpus(folder: Path, texts: list[str], held_out: Any = lambda number: number % 4 == 0) -> Path:
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    with documents.DocumentWriter(folder / "corpus") as writer:
        for number, text in enumerate(texts):
            writer.write(str(number), text, held_out(number))
    return folder / "corpus" / documents.FILE


def make(folder: Path, texts: list[str], vocabulary: int = 300, context: int = 16) -> tuple[dict[str, Any], Path]:
    """The meta of the token files and their folder."""
    corpus = write_corpus(folder, texts)
    trained = folder / "tokenizer" / "tokenizer.json"
    tokenizer(TokenizerSpec(**CODE, vocabulary=vocabulary), corpus, trained)
    tokens(TokensSpec(**CODE, context=context), corpus, trained, folder / "tokens" / "meta.json")
    return json.loads((folder / "tokens" / "meta.json").read_text()), folder / "tokens"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    return make(tmp_path_factory.mktemp("made"), [*TEXTS, FORGED])


def reread(folder: Path, meta: dict[str, Any], name: str) -> list[str]:
    """The documents in a token file, decoded."""
    encoder = Tokenizer.from_file(str(folder.parent / "tokenizer" / "tokenizer.json"))
    ids = np.fromfile(folder / name, np.dtype(meta["dtype"]).newbyteorder("<"))
    ends = np.flatnonzero(ids == meta["end_of_text"])
    assert ends[-1] == len(ids) - 1
    return [encoder.decode(part[part != meta["end_of_text"]].tolist()) for part in np.split(ids, ends + 1)[:-1]]


def test_token_files_hold_every_document_of_their_side_whole_and_in_order(made: Any) -> None:
    meta, folder = made
    texts = [*TEXTS, FORGED]
    assert reread(folder, meta, "train.bin") == [text for number, text in enumerate(texts) if number % 4]
    assert reread(folder, meta, "validation.bin") == [text for number, text in enumerate(texts) if number % 4 == 0]


def test_meta_states_what_is_in_the_files(made: Any) -> None:
    meta, folder = made
    assert meta["vocabulary"] == 300
    for side, name in (("train_tokens", "train.bin"), ("validation_tokens", "validation.bin")):
        data = (folder / name).read_bytes()
        assert len(data) == 2 * meta[side]
        assert hashlib.sha256(data).hexdigest() == meta["sha256"][name]
    held_out = [text for number, text in enumerate([*TEXTS, FORGED]) if number % 4 == 0]
    size = sum(len(text.encode()) for text in held_out)
    assert meta["bytes_per_token"] == pytest.approx(size / meta["validation_tokens"])


def test_unigram_entropy_is_the_loss_of_add_one_frequencies(made: Any) -> None:
    meta, folder = made
    training, validation = (np.fromfile(folder / name, "<u2").tolist() for name in ("train.bin", "validation.bin"))
    seen = Counter(training)
    total = len(training) + meta["vocabulary"]
    losses = [-math.log((seen[token] + 1) / total) for token in validation]
    assert meta["unigram_entropy_nats"] == pytest.approx(sum(losses) / len(losses), rel=1e-12)


def test_validation_text_does_not_shape_the_tokenizer(tmp_path: Path) -> None:
    spec = TokenizerSpec(**CODE, vocabulary=300)
    for name, marker in (("one", "zyxzyxzyx "), ("two", "qvwqvwqvw ")):
        corpus = write_corpus(tmp_path / name, [*TEXTS, marker * 200], held_out=lambda number: number == len(TEXTS))
        tokenizer(spec, corpus, tmp_path / name / "tokenizer" / "tokenizer.json")
    one, two = (tmp_path / name / "tokenizer" / "tokenizer.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_transformers_loads_the_folder_and_gives_the_same_tokens(made: Any) -> None:
    from transformers import AutoTokenizer

    _, folder = made
    ours = byte_pair.load(folder.parent / "tokenizer" / "tokenizer.json")
    theirs = AutoTokenizer.from_pretrained(folder.parent / "tokenizer", local_files_only=True)
    for text in [*TEXTS[:12], " a\tb\n\n  c ", "🙂 ' s it's"]:
        assert theirs(text)["input_ids"] == ours.encode(text).ids
        assert theirs.decode(theirs(text)["input_ids"]) == text
    assert (theirs.eos_token, theirs.eos_token_id) == (byte_pair.END_OF_TEXT, byte_pair.END_OF_TEXT_ID)
    assert len(theirs) == 300


@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_is_encoded_without_loss_and_without_an_end_of_text(made: Any, text: str) -> None:
    encoder = byte_pair.load(made[1].parent / "tokenizer" / "tokenizer.json")
    ids = encoder.encode(text + FORGED).ids
    assert byte_pair.END_OF_TEXT_ID not in ids
    assert encoder.decode(ids) == text + FORGED


def test_a_tokenizer_is_the_same_in_another_process_with_other_threads(made: Any, tmp_path: Path) -> None:
    corpus = made[1].parent / "corpus" / documents.FILE
    command = [sys.executable, "-m", "plumbline.lr_sweep.tokenizer", "--corpus", str(corpus)]
    command += ["--spec", json.dumps(CODE | {"vocabulary": 300}), "--output", str(tmp_path / "other/tokenizer.json")]
    environment = os.environ | {"PYTHONPATH": "workflow", "RAYON_NUM_THREADS": "3", "PYTHONHASHSEED": "5"}
    subprocess.run(command, check=True, env=environment)
    first = made[1].parent / "tokenizer" / "tokenizer.json"
    assert (tmp_path / "other" / "tokenizer.json").read_bytes() == first.read_bytes()


def test_a_vocabulary_larger_than_the_corpus_allows_names_what_it_reached(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, ["ab ab ab"] * 4)
    with pytest.raises(UserError, match=r"lr_sweep\.model\.vocabulary: is 5000, but the text allows only 259 tokens"):
        tokenizer(TokenizerSpec(**CODE, vocabulary=5000), corpus, tmp_path / "tokenizer" / "tokenizer.json")
    assert not (tmp_path / "tokenizer").exists()


@pytest.mark.parametrize(
    ("texts", "side", "count"),
    [
        (["xyz"] + ["ab" * 40] * 3, "validation", 4),
        (["ab" * 40, "xyz"], "training", 4),
        (["ab" * 40], "training", 0),
    ],
)
def test_a_corpus_shorter_than_a_window_is_refused(tmp_path: Path, texts: list[str], side: str, count: int) -> None:
    with pytest.raises(UserError, match=f"only {count} {side} tokens, fewer than a window of 17 .* documents"):
        make(tmp_path, texts, vocabulary=257)
    assert not (tmp_path / "tokens").exists()


def test_as_many_tokens_as_a_window_are_enough(tmp_path: Path) -> None:
    meta, _ = make(tmp_path, ["x" * 16, "y" * 16], vocabulary=257)
    assert meta["train_tokens"] == meta["validation_tokens"] == 17


def test_a_tokenizer_file_that_was_cut_is_refused(made: Any, tmp_path: Path) -> None:
    text = (made[1].parent / "tokenizer" / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text[:100])
    with pytest.raises(UserError, match="is not a tokenizer"):
        byte_pair.load(tmp_path / "tokenizer.json")


def test_the_stages_import_neither_torch_nor_transformers_nor_pandas() -> None:
    script = (
        "import sys; import plumbline.lr_sweep.corpus, plumbline.lr_sweep.tokenizer, plumbline.lr_sweep.tokens;"
        "heavy = {'torch', 'transformers', 'pandas', 'datasets'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": "workflow"})
