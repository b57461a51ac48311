"""Every fault in a valid model folder changes nothing, or is one line that names the folder; never another number."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from plumbline.core.errors import UserError
from plumbline.throughput.models import source
from plumbline.throughput.models.load import load_tensors, load_transformers
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.models.perplexity import quality
from plumbline.throughput.models.tokenizer import read_tokenizer
from throughput.small_models import write_random

WEIGHTS = "model.safetensors"
TEXT = "def parse(self, width=70): return None"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("whole") / "model")


def read(folder: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The weights, and the logits that the model gives for a text."""
    found = source.path(str(folder))
    manifest = Manifest(variant="v", method="none", folder=str(found.folder))
    tokens = torch.tensor([read_tokenizer(found.folder).encode(TEXT)[:20]])
    model = load_transformers(manifest, torch.float32, CPU, "sdpa")
    if (found_quality := quality(model, tokens)).get("outcome"):  # as stage `base` records it
        raise UserError(f"{found.folder}: {found_quality['message']}")
    with torch.no_grad():
        logits = model(tokens).logits
    return load_tensors(manifest, torch.float32, CPU), logits


def spoil(folder: Path, kind: str, file: str, at: float) -> None:
    """One fault; `at`: where, in [0, 1)."""
    path = folder / file
    if kind == "gone":
        path.unlink()
    elif kind == "cut":
        os.truncate(path, int(at * path.stat().st_size))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "another JSON value":
        path.write_text(["[]", "3", '"text"', "null"][int(at * 4)])
    elif kind == "header byte":
        data = bytearray((folder / WEIGHTS).read_bytes())
        data[int(at * (8 + int.from_bytes(data[:8], "little")))] ^= 0x11
        (folder / WEIGHTS).write_bytes(bytes(data))
    else:
        tensors = load_file(folder / WEIGHTS)
        key = sorted(tensors)[int(at * len(tensors))]
        tensor = tensors.pop(key)
        if kind == "tensor renamed":
            tensors[f"{key}.old"] = tensor
        elif kind == "tensor short":
            tensors[key] = tensor[:-1].contiguous()
        elif kind == "tensor added":
            tensors |= {key: tensor, f"{key}_bias": torch.ones(3)}
        elif kind == "tensor transposed":  # a square one that is transposed is another model, and a valid one
            tensors[key] = tensor.T.contiguous() if len({*tensor.shape}) == 2 else tensor
        elif kind == "not a number":
            tensors[key] = torch.full_like(tensor, torch.nan)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


OF_FILES = ("gone", "cut", "empty", "another JSON value")
OF_WEIGHTS = ("header byte", "tensor gone", "tensor renamed", "tensor short", "tensor added", "tensor transposed")


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([*OF_FILES, *OF_WEIGHTS, "not a number"]),
    file=st.sampled_from([WEIGHTS, "config.json", "tokenizer.json"]),
    at=st.floats(0, 1, exclude_max=True),
)
def test_a_fault_in_a_valid_folder_changes_nothing_or_is_an_error_but_never_gives_another_number(
    whole: Path, kind: str, file: str, at: float
) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = shutil.copytree(whole, Path(parent) / "model")
        spoil(folder, kind, file, at)
        try:
            weights, logits = read(folder)
        except UserError as error:
            message = str(error)
        else:
            message = str(folder)
            expected, expected_logits = read(whole)
            assert weights.keys() == expected.keys()
            assert all(torch.equal(weights[name], expected[name]) for name in expected)
            assert torch.equal(logits, expected_logits)
        assert "\n" not in message
        assert str(folder) in message


def test_the_folder_is_valid_and_its_config_is_what_decides(whole: Path) -> None:
    assert json.loads((whole / "config.json").read_text())["model_type"] == "llama"
    assert read(whole)[1].isfinite().all()
