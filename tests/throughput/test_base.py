import itertools
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome
from plumbline.throughput.base import BaseSpec, base
from plumbline.throughput.models.load import load_transformers
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.models.perplexity import window_losses
from plumbline.throughput.models.weights import sha256_of
from throughput.small_models import CODE, SMALL, VOCABULARY, change_weight, split, write_corpus, write_random

CPU = torch.device("cpu")
TEXT = {"window": 16, "calibration_windows": 12, "evaluation_windows": 10}


def spec_of(source, chosen, text=TEXT, seed=0):
    return BaseSpec(**CODE, model={"source": source, "chosen": chosen}, text=text, seed=seed, fingerprint=[])


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_random(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def made(spec, tmp_path, best=(), corpus=(), engines=()):
    output = tmp_path / "models" / "base" / "manifest.json"
    base(spec, best=list(best), corpus=list(corpus), output=output, device="cpu", engines=list(engines))
    return read_manifest(output), load_file(output.with_name("text.safetensors"))


def test_every_source_leads_to_the_same_model(model_folder, corpus, tmp_path):
    (model_folder / "manifest.json").write_text("{}")
    sources = {
        "path": ({"path": str(model_folder)}, []),
        "hub": ({"id": str(model_folder), "revision": None}, []),
        "trained": ({}, [model_folder / "manifest.json"]),
    }
    found = {
        name: made(spec_of(name, chosen), tmp_path / name, best, [corpus]) for name, (chosen, best) in sources.items()
    }
    for name, (manifest, text) in found.items():
        assert (manifest.outcome, manifest.weights, manifest.folder) == (Outcome.OK, name, str(model_folder))
        assert manifest.sha256 == sha256_of(model_folder)
        assert manifest.model_copy(update={"weights": "path"}) == found["path"][0]
        assert {key: part.shape for key, part in text.items()} == {"calibration": (12, 16), "evaluation": (10, 16)}
    shapes = found["path"][0].shapes
    assert (shapes.kind, shapes.vocabulary, shapes.context, shapes.width, shapes.head_size) == ("llama", 300, 32, 32, 8)


def test_perplexity_is_the_mean_over_predicted_tokens_by_a_plain_loop(model_folder, corpus, tmp_path):
    manifest, text = made(spec_of("path", {"path": str(model_folder)}), tmp_path, corpus=[corpus])
    model = load_transformers(manifest, torch.float32, CPU, "eager").double()
    losses = []
    for window in text["evaluation"]:
        for end in range(1, 16):
            chances = model(window[None, :end]).logits[0, -1].softmax(-1)
            losses.append(-math.log(float(chances[window[end]])))
    assert manifest.evaluation_tokens == len(losses) == 150
    assert manifest.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    of_windows = [sum(losses[start : start + 15]) / 15 for start in range(0, 150, 15)]
    assert manifest.window_nats == pytest.approx(of_windows, rel=1e-5)


def test_perplexity_does_not_depend_on_the_batch(model_folder, monkeypatch):
    model = load_transformers(
        Manifest(variant="v", method="none", folder=str(model_folder)), torch.float32, CPU, "sdpa"
    )
    windows = torch.randint(VOCABULARY, (9, 16))
    whole = window_losses(model, windows)
    monkeypatch.setattr("plumbline.throughput.models.perplexity.LOGITS_BYTES", 1)
    torch.testing.assert_close(window_losses(model, windows), whole, rtol=1e-5, atol=0)


def test_text_of_the_corpus_is_split_and_ends_documents(model_folder, corpus, tmp_path):
    _, text = made(spec_of("path", {"path": str(model_folder)}), tmp_path, corpus=[corpus])
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    for side, documents in zip(("calibration", "evaluation"), split(), strict=True):
        inside = [tokenizer.decode(tokenizer.encode(document).ids) for document in documents]
        for window in text[side].tolist():
            ends = [-1, *(place for place, token in enumerate(window) if token == 0), len(window)]
            for start, end in itertools.pairwise(ends):
                piece = tokenizer.decode(window[start + 1 : end])
                assert any(piece in document for document in inside)
    assert bool((text["calibration"] == 0).any())


def test_text_files_are_read_if_the_settings_name_them(model_folder, tmp_path):
    (tmp_path / "a.txt").write_text("".join(split()[0]))
    (tmp_path / "b.txt").write_text("".join(split()[1]))
    text = TEXT | {"calibration": [str(tmp_path / "a.txt")], "evaluation": [str(tmp_path / "b*.txt")]}
    manifest, _ = made(spec_of("path", {"path": str(model_folder)}, text), tmp_path)
    assert manifest.calibration.source == "text"
    assert manifest.perplexity > 100  # untrained, so about the vocabulary


def test_config_draws_weights_from_the_seed_and_tokens_at_random(tmp_path):
    runs = [made(spec_of("config", SMALL, seed=seed), tmp_path / str(i)) for i, seed in enumerate((0, 0, 1))]
    (first, text), (again, _), (other, _) = runs
    assert first.sha256 == again.sha256 != other.sha256
    assert (first.weights, first.perplexity, first.calibration.source) == ("random", None, "random tokens")
    assert first.folder == str(tmp_path / "0" / "models" / "base")
    assert text.keys() == {"calibration"}
    model = load_transformers(first, torch.float32, CPU, "sdpa")
    assert bool(model(text["calibration"]).logits.isfinite().all())
    assert float(model.model.embed_tokens.weight.std()) == pytest.approx(0.02, rel=0.05)


def test_model_with_a_nan_weight_is_an_outcome(model_folder, corpus, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "nan")
    change_weight(folder, "model.layers.1.mlp.up_proj.weight", math.nan)
    manifest, _ = made(spec_of("path", {"path": str(folder)}), tmp_path, corpus=[corpus])
    assert manifest.outcome is Outcome.INVALID_OUTPUT
    assert "model.layers.1.mlp.up_proj.weight" in manifest.message
    assert manifest.perplexity is None


def test_mistakes_are_one_line(model_folder, corpus, tmp_path):
    bare = write_random(tmp_path / "bare", tokenizer=False)
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{}")
    small = write_random(tmp_path / "small", vocabulary=200)
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 500)

    def given(**changes):
        return spec_of("path", {"path": str(model_folder)}, TEXT | changes)

    overlapping = {"calibration": [str(tmp_path / "short.txt")], "evaluation": [str(tmp_path / "*.txt")]}
    cases = [
        (spec_of("path", {"path": str(bare)}), "bare: has no tokenizer"),
        (spec_of("path", {"path": str(broken)}), "tokenizer.json: is not a tokenizer"),
        (spec_of("path", {"path": str(small)}), "gives id [0-9]+, but the model has 200 tokens"),
        (spec_of("path", {"path": str(tmp_path / "none")}), "none is not a directory"),
        (spec_of("path", {"path": str(tmp_path)}), "has no config.json"),
        (given(window=33), "throughput.text.window: 33 tokens, more than the context of 32 tokens"),
        (given(window=1), "throughput.text.window"),
        (spec_of("config", SMALL, TEXT | {"window": 33}), "window: 33 tokens, more than the context of 32 tokens"),
        (given(calibration=[str(tmp_path / "short.txt")]), "calibration: [0-9]+ tokens, fewer than 12 windows"),
        (given(calibration=[str(tmp_path / "latin.txt")]), "latin.txt: byte 3 is not valid UTF-8"),
        (given(**overlapping), "short.txt is also used for calibration"),
        (spec_of("hub", {"id": str(model_folder), "revision": "main"}), "throughput.model.hub.revision"),
        (spec_of("hub", {"id": "no//id", "revision": None}), "throughput.model.hub"),
    ]
    for spec, message in cases:
        with pytest.raises(UserError, match=message) as error:
            made(spec, tmp_path, corpus=[corpus])
        assert "\n" not in str(error.value)
    assert not (tmp_path / "models" / "base").exists()


def test_damaged_corpus_is_named(model_folder, tmp_path):
    manifest = write_corpus(tmp_path / "corpus")
    table = manifest.with_name("documents.parquet")
    table.write_bytes(table.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"documents\.parquet: is not a complete corpus"):
        made(spec_of("path", {"path": str(model_folder)}), tmp_path, corpus=[manifest])


def test_hub_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="some-lab/some-model is not a directory here, and the hub did not provide it"):
        made(spec_of("hub", {"id": "some-lab/some-model", "revision": None}), tmp_path)


@pytest.mark.parametrize(("engine", "is_refused"), [("lean", True), ("llama_cpp", True), ("generate", False)])
def test_hub_model_that_an_engine_cannot_run_is_refused_before_its_weights_are_fetched(
    tmp_path, monkeypatch, engine, is_refused
):
    """The cache has nothing but config.json, so that fetching the weights would fail otherwise."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = tmp_path / "cache" / "models--some-lab--other"
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs" / "main").write_text("0123")
    (snapshot / "snapshots" / "0123").mkdir(parents=True)
    (snapshot / "snapshots" / "0123" / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError) as caught:
        made(spec_of("hub", {"id": "some-lab/other", "revision": None}), tmp_path, engines=[engine])
    message = f"{engine} only supports model_type llama, not gpt2, which some-lab/other has; use engines: [generate]"
    assert (message in str(caught.value)) is is_refused


def test_hub_model_in_the_cache_is_found_with_its_commit(model_folder, corpus, tmp_path, monkeypatch):
    """The cache's own layout, and the real client, offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--some-lab--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(model_folder, repository / "snapshots" / commit)
    manifest, _ = made(spec_of("hub", {"id": "some-lab/small", "revision": None}), tmp_path, corpus=[corpus])
    assert (manifest.revision, manifest.weights) == (commit, "hub")
    assert manifest.folder == str(repository / "snapshots" / commit)
    assert json.loads((tmp_path / "models" / "base" / "manifest.json").read_text())["outcome"] == "ok"
