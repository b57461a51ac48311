import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from plumbline.core.errors import UserError
from plumbline.throughput.measurement.prompts import prompts
from plumbline.throughput.models.load import load_transformers
from plumbline.throughput.models.manifest import Manifest, Shapes
from plumbline.throughput.reference import ReferenceSpec, greedy, reference
from throughput.small_models import CODE, change_weight, write_random

CPU = torch.device("cpu")
SHAPES = [(5, 3, 6), (2, 4, 4)]


@pytest.fixture
def variant(tmp_path):
    folder = write_random(tmp_path / "model", tokenizer=False)
    shapes = Shapes(kind="llama", vocabulary=300, context=32, width=32, layers=2, heads=4, kv_heads=4, head_size=8)
    save_file({"evaluation": torch.arange(300).view(10, 30)}, tmp_path / "text.safetensors")
    return Manifest(variant="base", method="none", folder=str(folder), shapes=shapes)


def written(variant, tmp_path, dtype="float32"):
    (tmp_path / "manifest.json").write_text(variant.model_dump_json())
    spec = ReferenceSpec(**CODE, variant="base", shapes=SHAPES, dtype=dtype, seed=1)
    files = {"manifest": tmp_path / "manifest.json", "text": tmp_path / "text.safetensors"}
    reference(spec, **files, output=tmp_path / "reference.safetensors", device="cpu")
    with safe_open(tmp_path / "reference.safetensors", "pt") as file:
        return load_file(tmp_path / "reference.safetensors"), file.metadata()


def test_reference_equals_greedy_decoding_without_a_cache(variant, tmp_path):
    found, metadata = written(variant, tmp_path)
    assert metadata["outcome"] == "ok"
    assert found.keys() == {"p3", "p3.margin", "p4", "p4.margin"}
    model = load_transformers(variant, torch.float32, CPU, "eager").double()
    for prompt, batch, count in ((3, 5, 6), (4, 2, 4)):
        tokens = prompts(tmp_path / "text.safetensors", 300, batch, prompt, seed=1)
        for step in range(count):
            best = model(tokens, use_cache=False).logits[:, -1].topk(2)
            assert torch.equal(found[f"p{prompt}"][:, step], best.indices[:, 0])
            margin = found[f"p{prompt}.margin"][:, step].double()
            torch.testing.assert_close(margin, best.values[:, 0] - best.values[:, 1], rtol=1e-3, atol=1e-5)
            tokens = torch.cat([tokens, best.indices[:, :1]], dim=1)


def test_generation_does_not_stop_at_end_of_text(variant):
    model = load_transformers(variant, torch.float32, CPU, "sdpa")
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[0] = 1e-3  # the end of text, the config says
        model.model.norm.weight.fill_(1.0)
    tokens, margins = greedy(model, torch.arange(6).view(2, 3), 8)
    assert tokens.shape == margins.shape == (2, 8)
    assert bool((tokens == 0).any())


def test_rows_are_halved_until_they_fit(variant, monkeypatch):
    model = load_transformers(variant, torch.float32, CPU, "sdpa")
    rows = torch.randint(300, (11, 3), generator=torch.Generator().manual_seed(0))
    expected = greedy(model, rows, 5)
    sizes = []

    def narrow(generate=model.generate):
        def limited(tokens, **kwargs):
            sizes.append(len(tokens))
            if len(tokens) > 3:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")
            return generate(tokens, **kwargs)

        return limited

    monkeypatch.setattr(model, "generate", narrow())
    found = greedy(model, rows, 5)
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


def test_nothing_that_fits_is_a_memory_error(variant, monkeypatch):
    model = load_transformers(variant, torch.float32, CPU, "sdpa")

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "generate", full)
    with pytest.raises(MemoryError):
        greedy(model, torch.zeros(4, 3, dtype=torch.int64), 5)


def test_logits_that_are_not_finite_are_an_outcome(variant, tmp_path):
    change_weight(tmp_path / "model", "lm_head.weight", math.nan)
    found, metadata = written(variant, tmp_path)
    assert (found, metadata["outcome"]) == ({}, "invalid_output")
    assert metadata["message"]


def test_reference_takes_over_the_manifests_outcome(variant, tmp_path):
    gone = Manifest(variant="mine", method="user", outcome="unavailable", message="models/x: does not exist")
    found, metadata = written(gone, tmp_path)
    assert (found, metadata["outcome"], metadata["message"]) == ({}, "unavailable", "models/x: does not exist")


def test_lengths_beyond_the_context_and_unsupported_dtypes_are_refused(variant, tmp_path, monkeypatch):
    short = variant.model_copy(update={"shapes": variant.shapes.model_copy(update={"context": 8})})
    with pytest.raises(UserError, match=r"prompt 3 \+ generated 6 is more than the context of 8 tokens"):
        written(short, tmp_path)
    monkeypatch.setattr("plumbline.core.measure.machine._cpu_field", lambda name: "avx2 fma")
    with pytest.raises(UserError, match="cpu has no float16 arithmetic"):
        written(variant, tmp_path, dtype="float16")
