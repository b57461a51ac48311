"""The stages before the training: pairs are counted, sequences have their ends, what is too long is told."""

import json

import pytest
from transformers import AutoTokenizer

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_json
from plumbline.data_parallel.corpus import CorpusSpec, corpus
from plumbline.data_parallel.settings import CorpusSettings
from plumbline.data_parallel.tokenizer import TokenizerSpec, tokenizer
from plumbline.data_parallel.tokens import TokensSpec, tokens
from plumbline.data_parallel.training.data import open_tokens

HEAD = {"code": "", "inputs": ""}
PAIRS = [("der Hund läuft im Park", "the dog runs in the park"), ("die Katze schläft", "the cat sleeps")] * 3
LONG = ("der Hund " * 30, "the dog " * 30)


def build(folder, pairs, *, context=64, too_long="drop"):
    """The tokens of `pairs`, which are all splits."""
    path = folder / "pairs.tsv"
    path.write_text("".join(f"{de}\t{en}\n" for de, en in pairs))
    files = {key: [str(path)] for key in ("train", "validation", "test")}
    settings = CorpusSettings.model_validate({"source": "files", "files": files})
    manifest, encoder = folder / "corpus" / "manifest.json", folder / "tokenizer" / "tokenizer.json"
    corpus(CorpusSpec(corpus=settings, fingerprint=[], **HEAD), manifest)
    tokenizer(TokenizerSpec(vocabulary=262, **HEAD), manifest, encoder)
    meta = folder / "tokens" / "meta.json"
    tokens(TokensSpec(context=context, too_long=too_long, **HEAD), manifest, encoder, meta)
    return meta


def test_a_sequence_is_source_end_target_end(tmp_path):
    made = open_tokens(build(tmp_path, PAIRS))
    encoder = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    split = made.splits["test"]
    for index, (german, english) in enumerate(PAIRS):
        ids = split.row(index).tolist()
        prompt = int(split.prompts[index])
        assert encoder.decode(ids[: prompt - 1]) == german
        assert encoder.decode(ids[prompt:-1]) == english
        assert (ids[prompt - 1], ids[-1]) == (made.end_of_source, made.end_of_target)
    assert encoder.eos_token_id == made.end_of_target
    assert made.texts["test"]["target"] == [english for _, english in PAIRS]


def test_pairs_with_an_empty_side_are_left_out_and_counted(tmp_path):
    build(tmp_path, [*PAIRS, ("nichts", " "), (" ", "nothing")])
    manifest = read_json(tmp_path / "corpus" / "manifest.json")
    assert manifest["pairs"] == {"train": 6, "validation": 6, "test": 6}
    assert manifest["pairs_with_an_empty_side"] == 6


@pytest.mark.parametrize(("too_long", "kept"), [("drop", 6), ("truncate", 7)])
def test_sequences_longer_than_the_context_are_counted_and_dropped_or_cut(tmp_path, too_long, kept):
    half = ("der Hund läuft", LONG[1])
    meta = build(tmp_path, [*PAIRS, half, LONG], too_long=too_long)
    counts = read_json(meta)["splits"]["test"]
    assert (counts["sequences"], counts["too_long"]) == (kept, 2)  # of LONG the context holds nothing but source
    made = open_tokens(meta)
    assert made.splits["test"].lengths.max() <= 64
    assert len(made.texts["test"]["source"]) == kept


def test_a_context_that_no_sequence_fits_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data_parallel\.model\.context: is 4 tokens, and no sequence of the split"):
        build(tmp_path, PAIRS, context=4)


def test_a_tokenizer_of_another_corpus_is_refused(tmp_path):
    build(tmp_path, PAIRS)
    manifest = tmp_path / "corpus" / "manifest.json"
    write_json(manifest, json.loads(manifest.read_text()) | {"content_sha256": "other"})
    spec = TokensSpec(context=64, too_long="drop", **HEAD)
    with pytest.raises(UserError, match=r"tokenizer\.json: was trained on another corpus than .*manifest\.json"):
        tokens(spec, manifest, tmp_path / "tokenizer" / "tokenizer.json", tmp_path / "again" / "meta.json")


def test_a_corpus_without_pairs_for_a_split_is_named(tmp_path):
    with pytest.raises(UserError, match="the source files has no pair for the split train"):
        build(tmp_path, [("", "")])
