"""Every engine generates the tokens that a plain loop over transformers' whole forward pass would."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.core.run.processes import in_child, limit_address_space
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.convert import ConvertSpec, convert
from plumbline.throughput.engines.interface import Engine, Shape, load
from plumbline.throughput.measurement.memory import status_bytes
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models import huge_pages, llama
from plumbline.throughput.models.load import load_transformers
from plumbline.throughput.models.manifest import CompressedLayer, Manifest, Shapes, read_manifest

CONVERTED = ("ctranslate2", "llama_cpp")
WITH_LOW_RANK = ("generate", "static", "continuous", "lean")
ENGINES = (*WITH_LOW_RANK, *CONVERTED)
CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "one key head": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True, "vocab_size": 64},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 16, "num_key_value_heads": 2, "rope_theta": 500_000.0},
}
GENERATED = 9


def write(folder: Path, **changes: Any) -> Manifest:
    """A Llama with random weights, large enough for tokens to vary, as transformers saves it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2}
    config = LlamaConfig(
        **{**sizes, "num_attention_heads": 4, "max_position_embeddings": 32, "eos_token_id": 2} | changes
    )
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * (0.3 if weight.dim() > 1 else 0.5) + ("norm" in name))
    model.save_pretrained(folder)
    return Manifest(variant="base", method="none", folder=str(folder), weights="random")


def with_low_rank(manifest: Manifest, folder: Path, names: list[str], rank: int = 5) -> Manifest:
    """The model with some layers replaced by random ones of low rank."""
    folder.mkdir()
    tensors = load_file(Path(manifest.folder) / "model.safetensors")
    layers = []
    for number, name in enumerate([name for name in tensors if any(part in name for part in names)]):
        m, n = tensors.pop(name).shape
        name, own = name.removesuffix(".weight"), rank + number % 3
        tensors |= {f"{name}.0.weight": torch.randn(own, n) * 0.3, f"{name}.1.weight": torch.randn(m, own) * 0.4}
        if f"{name}.bias" in tensors:
            tensors[f"{name}.1.bias"] = tensors.pop(f"{name}.bias")
        layers.append(CompressedLayer(name=name, rows=m, columns=n, rank=own, error=0, discarded=0, norm=1))
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_bytes((Path(manifest.folder) / "config.json").read_bytes())
    return manifest.model_copy(update={"folder": str(folder), "layers": layers})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    root = tmp_path_factory.mktemp("models")
    found = {kind: write(root / kind, **changes) for kind, changes in KINDS.items()}
    every = ["_proj.weight"]
    found["low rank"] = with_low_rank(found["grouped"], root / "low rank", every)
    found["low rank in part"] = with_low_rank(
        found["biases"], root / "in part", ["k_proj.weight", "1.mlp.up_proj.weight", "0.mlp.down_proj.weight"]
    )
    return found


def config(**changes: Any) -> EngineConfig:
    return EngineConfig(**{"dtype": "float32", "attention": "sdpa", "threads": 1, "compile": False, **changes})


@contextmanager
def engine(
    name: str, manifest: Manifest, prompts: Tensor, generated: int = GENERATED, **changes: Any
) -> Iterator[Engine]:
    batch, prompt = prompts.shape
    if name in CONVERTED:
        manifest = converted(manifest, name, changes.get("dtype", "float32"))
    shape = Shape(batch=batch, prompt=prompt, generated=generated)
    made = load(name)(manifest, CPU, config(**changes), shape)
    try:
        yield made
    finally:
        made.close()


def converted(manifest: Manifest, engine: str, dtype: str = "float32") -> Manifest:
    """The manifest that the stage `convert` writes, in a folder beside the model's; written once."""
    output = Path(f"{manifest.folder}+{engine}+{dtype}") / "manifest.json"
    if not output.exists():
        source = Path(f"{manifest.folder}.json")
        source.write_text(manifest.model_dump_json())
        settings = {"variant": manifest.variant, "engine": engine, "dtype": dtype, "missing": []}
        convert(ConvertSpec(code="", inputs="", **settings), source, output)
    return read_manifest(output)


def random_prompts(batch: int, prompt: int) -> Tensor:
    return torch.randint(61, (batch, prompt), generator=torch.Generator().manual_seed(batch + 10 * prompt))


@torch.no_grad()
def by_whole_passes(manifest: Manifest, prompts: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Greedy tokens (batch, count) without any cache, and the logits (batch, vocabulary) of the first."""
    model = load_transformers(manifest, torch.float32, CPU, "eager")
    tokens, first = prompts, None
    for _ in range(count):
        logits = model(tokens, use_cache=False).logits[:, -1]
        first = logits if first is None else first
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    assert first is not None
    return tokens[:, prompts.shape[1] :], first


@pytest.mark.parametrize("kind", [*KINDS, "low rank", "low rank in part"])
@pytest.mark.parametrize(("batch", "prompt"), [(1, 1), (1, 7), (5, 1), (5, 7)])
def test_tokens_and_logits_equal_decoding_without_a_cache(
    models: dict[str, Manifest], kind: str, batch: int, prompt: int
) -> None:
    prompts = random_prompts(batch, prompt)
    tokens, logits = by_whole_passes(models[kind], prompts, GENERATED)
    assert len(tokens.unique()) > 3  # a model that repeats itself would hide mistakes
    for name, attention in [("generate", "sdpa"), ("lean", "sdpa"), ("lean", "eager")]:
        with engine(name, models[kind], prompts, attention=attention) as made:
            assert torch.equal(made.generate(prompts, GENERATED), tokens), (name, attention)
            torch.testing.assert_close(made.logits(prompts), logits, rtol=1e-4, atol=1e-4)
            assert torch.equal(made.generate(prompts, GENERATED), tokens), "a call must not depend on the one before"


@pytest.mark.parametrize(("threads", "cached"), [(1, 2**24), (1, 0), (2, 0)])
@pytest.mark.parametrize("kind", ["grouped", "tied", "biases", "low rank in part", "low rank"])
def test_weights_in_parts_on_huge_pages_give_the_same(
    models: dict[str, Manifest], kind: str, threads: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "LARGE_BYTES", {"cached": 0, "streamed": 0})
    monkeypatch.setattr(llama, "ROWS", 2)
    monkeypatch.setattr(llama, "CACHED_BYTES", cached)  # a model beyond it has its ranks padded
    monkeypatch.setattr(huge_pages, "LEAST_BYTES", 0)

    def compare() -> None:
        for prompt in (1, 7):
            prompts = random_prompts(1, prompt)
            tokens, logits = by_whole_passes(models[kind], prompts, GENERATED)
            with engine("lean", models[kind], prompts, threads=threads) as made:
                assert any(weight.dim() == 3 and len(weight) > 1 for weight in made.weights())
                assert torch.equal(made.generate(prompts, GENERATED), tokens)
                torch.testing.assert_close(made.logits(prompts), logits, rtol=1e-4, atol=1e-4)

    in_child(compare)  # a process that has had two threads cannot be forked by later tests


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "prompt"), [(1, 1), (1, 7), (3, 7)])
def test_engines_with_a_format_of_their_own_give_the_same(
    models: dict[str, Manifest], name: str, kind: str, batch: int, prompt: int
) -> None:
    prompts = random_prompts(batch, prompt)
    tokens, logits = by_whole_passes(models[kind], prompts, GENERATED)
    with engine(name, models[kind], prompts) as made:
        for _ in range(2):
            assert torch.equal(made.generate(prompts, GENERATED), tokens)
            found = made.logits(prompts)
            torch.testing.assert_close(found.log_softmax(-1), logits.log_softmax(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONVERTED)
def test_variant_with_low_rank_layers_is_unavailable_where_the_format_has_none(
    models: dict[str, Manifest], name: str
) -> None:
    found = converted(models["low rank in part"], name)
    assert found.outcome is Outcome.UNAVAILABLE
    assert found.message == f"engine {name} has no low-rank layers, as base has"
    assert [file.name for file in Path(found.converted.folder).iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("name", CONVERTED)
def test_failed_variant_stays_failed_when_converted(models: dict[str, Manifest], tmp_path: Path, name: str) -> None:
    failed = Manifest(variant="lost", method="user", outcome=Outcome.UNAVAILABLE, message="lost: does not exist")
    found = converted(failed.model_copy(update={"folder": str(tmp_path / "lost")}), name)
    assert (found.outcome, found.message) == (Outcome.UNAVAILABLE, "lost: does not exist")


@pytest.mark.parametrize("name", CONVERTED)
def test_two_threads_give_the_tokens_of_one(models: dict[str, Manifest], name: str) -> None:
    prompts = random_prompts(3, 7)
    tokens, _ = by_whole_passes(models["grouped"], prompts, GENERATED)

    def compare() -> None:
        with engine(name, models["grouped"], prompts, threads=2) as made:
            assert torch.equal(made.generate(prompts, GENERATED), tokens)

    in_child(compare)


def test_llama_cpp_in_bfloat16_stays_close_to_float32(models: dict[str, Manifest]) -> None:
    prompts = random_prompts(2, 5)
    _, logits = by_whole_passes(models["grouped"], prompts, 1)
    with engine("llama_cpp", models["grouped"], prompts, dtype="bfloat16") as made:
        difference = made.logits(prompts) - logits.log_softmax(-1)
        assert 1e-4 < difference.abs().max() < 0.05 * logits.abs().max()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("ctranslate2", "do not support efficient float16"), ("llama_cpp", "given float32 weights, not")],
)
def test_dtype_that_an_engine_cannot_compute_in_is_unavailable(
    models: dict[str, Manifest], name: str, reason: str
) -> None:
    manifest = converted(models["plain"], name)
    with pytest.raises(OutcomeError, match=reason) as caught:
        load(name)(manifest, CPU, config(dtype="float16"), Shape(batch=1, prompt=2, generated=3))
    assert caught.value.outcome is Outcome.UNAVAILABLE


def test_more_rows_than_llama_cpp_takes_are_unavailable(models: dict[str, Manifest]) -> None:
    with pytest.raises(OutcomeError, match="at most 256 rows, not 257"):
        load("llama_cpp")(
            converted(models["plain"], "llama_cpp"), CPU, config(), Shape(batch=257, prompt=2, generated=3)
        )


def test_llama_cpps_server_answers_no_one_else(models: dict[str, Manifest]) -> None:
    prompts = random_prompts(1, 2)
    with engine("llama_cpp", models["plain"], prompts) as made:
        made.generate(prompts, GENERATED)
        address = f"{made._server.listening_address}/v1/completions"
        question = Request(address, b'{"prompt": [1]}', {"Content-Type": "application/json"})
        with pytest.raises(HTTPError, match="401"):
            urlopen(question, timeout=10)


def test_cache_that_does_not_fit_is_out_of_memory_in_llama_cpp(tmp_path: Path) -> None:
    """The cache of 200 rows takes 420 MB, and llama.cpp ends the process where it gets no memory."""
    shapes = {"vocabulary": 61, "context": 4096, "width": 32, "layers": 2, "heads": 4, "kv_heads": 4, "head_size": 8}
    known = Shapes(kind="llama", **shapes)
    manifest = write(tmp_path / "long", max_position_embeddings=4096).model_copy(update={"shapes": known})
    manifest = converted(manifest, "llama_cpp")

    def construct(room: int) -> None:
        load("llama_cpp").prepare(manifest)
        limit_address_space(status_bytes("VmSize") + room)
        load("llama_cpp")(manifest, CPU, config(), Shape(batch=200, prompt=4, generated=4000)).close()

    in_child(partial(construct, 2**30))
    with pytest.raises(MemoryError, match=r"llama\.cpp needs about"):
        in_child(partial(construct, 600 * 2**20))


@pytest.mark.parametrize("name", CONVERTED)
def test_variant_that_was_not_converted_is_a_mistake(models: dict[str, Manifest], name: str) -> None:
    with pytest.raises(UserError, match=f"base: is not converted for engine {name}"):
        load(name)(models["plain"], CPU, config(), Shape(batch=1, prompt=2, generated=3))


@pytest.mark.parametrize("name", ["static", "continuous"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["grouped", "low rank"])
def test_other_engines_of_transformers_give_the_same(
    models: dict[str, Manifest], name: str, attention: str, kind: str
) -> None:
    prompts = random_prompts(5, 7)
    tokens, logits = by_whole_passes(models[kind], prompts, GENERATED)
    with engine(name, models[kind], prompts, attention=attention) as made:
        assert torch.equal(made.generate(prompts, GENERATED), tokens)
        torch.testing.assert_close(made.logits(prompts), logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(made.generate(prompts, GENERATED), tokens)


@pytest.mark.parametrize("name", ENGINES)
def test_end_of_text_ends_no_row(models: dict[str, Manifest], tmp_path: Path, name: str) -> None:
    prompts = random_prompts(5, 3)
    tokens, _ = by_whole_passes(models["plain"], prompts, GENERATED)
    folder = tmp_path / "model"
    folder.mkdir()
    for file in Path(models["plain"].folder).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for file_name in ("config.json", "generation_config.json"):
        config = json.loads((folder / file_name).read_text())
        (folder / file_name).write_text(json.dumps(config | {"eos_token_id": int(tokens[0, 3])}))
    with engine(name, models["plain"].model_copy(update={"folder": str(folder)}), prompts) as made:
        assert torch.equal(made.generate(prompts, GENERATED), tokens)


@pytest.mark.parametrize("name", ENGINES)
def test_on_token_is_called_for_each_token(models: dict[str, Manifest], name: str) -> None:
    prompts = random_prompts(5, 3)
    calls: list[None] = []
    with engine(name, models["plain"], prompts) as made:
        alone = made.generate(prompts, GENERATED)
        assert torch.equal(made.generate(prompts, GENERATED, lambda: calls.append(None)), alone)
    assert len(calls) == GENERATED


@pytest.mark.parametrize("name", ENGINES)
def test_fewer_tokens_are_the_first_of_more(models: dict[str, Manifest], name: str) -> None:
    prompts = random_prompts(2, 4)
    with engine(name, models["plain"], prompts) as made:
        assert torch.equal(made.generate(prompts, 4), made.generate(prompts, GENERATED)[:, :4])


@pytest.mark.parametrize(
    ("name", "kind"),
    [*itertools.product(ENGINES, ["plain", "tied", "biases"]), *((name, "low rank") for name in WITH_LOW_RANK)],
)
def test_weights_of_a_step_exclude_embedding_lookups(models: dict[str, Manifest], name: str, kind: str) -> None:
    stored = load_file(Path(models[kind].folder) / "model.safetensors")
    wanted = sum(weight.numel() for key, weight in stored.items() if kind == "tied" or "embed_tokens" not in key)
    with engine(name, models[kind], random_prompts(1, 2)) as made:
        weights = made.weights()
        assert sum(weight.numel() for weight in weights) == wanted
        assert len({weight.data_ptr() or id(weight) for weight in weights}) == len(weights)


@pytest.mark.parametrize("name", ENGINES)
def test_nan_weight_shows_in_the_logits(models: dict[str, Manifest], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((Path(models["plain"].folder) / "config.json").read_bytes())
    tensors = load_file(Path(models["plain"].folder) / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    prompts = random_prompts(2, 4)
    with engine(name, models["plain"].model_copy(update={"folder": str(folder)}), prompts) as made:
        assert made.generate(prompts, 3).shape == (2, 3)
        assert not made.logits(prompts).isfinite().any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lean_in_half_precision_stays_close_to_float32(models: dict[str, Manifest], dtype: str) -> None:
    prompts = random_prompts(2, 5)
    _, logits = by_whole_passes(models["grouped"], prompts, 1)
    for attention in ("sdpa", "eager"):
        with engine("lean", models["grouped"], prompts, dtype=dtype, attention=attention) as made:
            assert (made.logits(prompts) - logits).abs().max() < 0.05 * logits.abs().max()
            assert made.generate(prompts, 4).shape == (2, 4)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("model_type", "mistral", "only supports model_type llama, not mistral"),
        ("hidden_act", "gelu", "only supports hidden_act silu, not gelu"),
        ("rope_parameters", {"rope_type": "llama3", "rope_theta": 1e4}, "only supports rope_type default, not llama3"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "only supports rope_type default, not linear"),
    ],
)
def test_lean_refuses_unsupported_architectures(
    models: dict[str, Manifest], tmp_path: Path, key: str, value: Any, named: str
) -> None:
    source = Path(models["plain"].folder)
    config = json.loads((source / "config.json").read_text())
    if key == "rope_scaling":
        del config["rope_parameters"]  # as before transformers 5
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    manifest = models["plain"].model_copy(update={"folder": str(tmp_path)})
    with pytest.raises(OutcomeError, match=named) as caught, engine("lean", manifest, random_prompts(1, 2)):
        pass
    assert caught.value.outcome is Outcome.UNAVAILABLE


def test_lean_names_a_missing_and_a_misshapen_weight(models: dict[str, Manifest], tmp_path: Path) -> None:
    source = Path(models["plain"].folder)
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    manifest = models["plain"].model_copy(update={"folder": str(tmp_path)})
    tensors = load_file(source / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    for change, message in (({}, f"lacks {name}"), ({name: torch.zeros(3, 3)}, f"{name} has shape")):
        save_file(
            {key: value for key, value in tensors.items() if key != name} | change, tmp_path / "model.safetensors"
        )
        with pytest.raises(UserError, match=message), engine("lean", manifest, random_prompts(1, 2)):
            pass


def test_class_that_is_not_an_engine_is_refused() -> None:
    with pytest.raises(UserError, match=r"throughput\.grid\.engines: pathlib:Path: is not a subclass of"):
        load("pathlib:Path")
