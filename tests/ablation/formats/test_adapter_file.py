"""Whatever trainer wrote an adapter, its ΔW is the same; whatever is wrong with it, it is never another."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from ablation.formats.writing import CROSS, NAMINGS, PLACES, SELF, Saved, changes, dotted, random_pairs
from plumbline.ablation.data.store import AdapterStore
from plumbline.ablation.formats.adapter_file import Factors, outline, read_factors
from plumbline.ablation.formats.tensors import BadAdapter
from plumbline.ablation.sources import adapters
from plumbline.core.errors import UserError

SLOW = settings(max_examples=60, deadline=None)


def read(file: Path, **options: Any) -> Factors:
    outline(file)
    return read_factors(file, file.parents[1], **options)


def change_of(found: Factors) -> dict[str, np.ndarray]:
    return {
        module: scale
        * found.factors[f"{module}.lora.up.weight"].astype(np.float64)
        @ found.factors[f"{module}.lora.down.weight"].astype(np.float64)
        for module, scale in found.scales.items()
    }


def check(found: Factors, expected: dict[str, np.ndarray], tolerance: float = 1e-12) -> None:
    got = change_of(found)
    assert set(got) == set(expected)
    for module, values in expected.items():
        np.testing.assert_allclose(got[module], values, rtol=0, atol=tolerance * max(1e-30, np.abs(values).max()))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_with_its_scale_in_every_place_gives_the_same_change(
    tmp_path: Path, naming: str, place: str
) -> None:
    pairs = random_pairs()
    file = PLACES[place](NAMINGS[naming](pairs), 7.0).save(tmp_path / "cat" / "run" / "a.safetensors")
    found = read_factors(file, tmp_path)
    check(found, changes(pairs, 3.5))
    assert found.states_alpha
    assert found.computed == set()


@SLOW
@given(
    seed=st.integers(0, 2**32),
    rank=st.integers(1, 5),
    alpha=st.floats(0.01, 1e4),
    naming=st.sampled_from(sorted(NAMINGS)),
    other=st.sampled_from(sorted(NAMINGS)),
    place=st.sampled_from(sorted(set(PLACES) - {"tensors"})),
)
def test_random_adapters_have_the_same_change_in_any_two_namings(
    seed: int, rank: int, alpha: float, naming: str, other: str, place: str
) -> None:
    pairs = random_pairs(seed, rank)
    for name in (naming, other):
        with tempfile.TemporaryDirectory() as folder:
            file = PLACES[place](NAMINGS[name](pairs), alpha).save(Path(folder) / "cat" / "a.safetensors")
            check(read_factors(file, Path(folder)), changes(pairs, alpha / rank))


@pytest.mark.parametrize(
    "alpha",
    [
        torch.tensor(3),
        torch.tensor([3]),
        torch.tensor([[3]], dtype=torch.int32),
        torch.tensor(3, dtype=torch.uint8),
        torch.tensor(3, dtype=torch.bfloat16),
        torch.tensor(3, dtype=torch.float16),
        torch.tensor([3], dtype=torch.float64),
    ],
)
def test_alpha_is_read_from_a_tensor_of_any_type_and_number_of_dimensions(tmp_path: Path, alpha: torch.Tensor) -> None:
    pairs = random_pairs(modules=(SELF,))
    tensors = {key: torch.from_numpy(value) for key, value in NAMINGS["kohya"](pairs).items()}
    tensors[f"lora_unet_{SELF.replace('.', '_')}.alpha"] = alpha
    save_torch(tensors, tmp_path / "a.safetensors")
    check(read_factors(tmp_path / "a.safetensors", tmp_path), changes(pairs, 1.5))


@pytest.mark.parametrize("name", ["alpha", "lora_alpha", "network_alpha"])
def test_one_tensor_can_hold_the_alpha_of_all_modules(tmp_path: Path, name: str) -> None:
    pairs = random_pairs()
    tensors = {**NAMINGS["diffusers"](pairs), name: np.array([3], np.int64)}
    check(read(Saved(tensors, {}, {}).save(tmp_path / "cat" / "a.safetensors")), changes(pairs, 1.5))


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({"alpha_pattern": {"attn1.to_q": 5}}, (2.5, 4)),
        ({"alpha_pattern": {SELF: 5}}, (2.5, 4)),
        ({"alpha_pattern": {r".*\.to_q": 5}}, (2.5, 4)),
        ({"alpha_pattern": {f"^{SELF}": 5}}, (2.5, 4)),
        ({"alpha_pattern": {"to_q": 5, "attn1.to_q": 6}}, (2.5, 4)),
        ({"alpha_pattern": {"tn1.to_q": 5}}, (4, 4)),
        ({"use_rslora": True}, (8 / np.sqrt(2), 8 / np.sqrt(2))),
        ({"use_rslora": True, "alpha_pattern": {"to_v": 2}}, (8 / np.sqrt(2), 2 / np.sqrt(2))),
    ],
)
@pytest.mark.parametrize("where", ["file", "metadata"])
def test_patterns_and_rank_stabilised_scales_are_those_of_peft(
    tmp_path: Path, config: dict[str, Any], scales: tuple[float, float], where: str
) -> None:
    values = {"lora_alpha": 8, "r": 2, **config}
    pairs = random_pairs()
    if where == "file":
        saved = Saved(NAMINGS["PEFT"](pairs), {}, {"adapter_config.json": json.dumps(values)})
    else:
        stored = json.dumps({f"unet.{key}": value for key, value in values.items()})
        saved = Saved(NAMINGS["diffusers"](pairs), {"lora_adapter_metadata": stored}, {})
    found = read_factors(saved.save(tmp_path / "a.safetensors"), tmp_path)
    assert (found.scales[SELF], found.scales[CROSS]) == pytest.approx(scales, rel=1e-15)


@pytest.mark.parametrize("wrapper", ["transformer", "unet"])
def test_a_pattern_with_the_full_name_matches_below_a_base_model_that_wraps_its_layers(
    tmp_path: Path, wrapper: str
) -> None:
    patterns = {f"{wrapper}.{SELF}": 40, f"^{CROSS}": 20}
    pairs = random_pairs()
    tensors = dotted(f"base_model.model.{wrapper}.", "lora_A", "lora_B")(pairs)
    config = json.dumps({"lora_alpha": 8, "r": 2, "alpha_pattern": patterns})
    file = Saved(tensors, {}, {"adapter_config.json": config}).save(tmp_path / "a.safetensors")
    # The second pattern is anchored to a name that PEFT does not see: it sees the wrapper's above it.
    assert read_factors(file, tmp_path).scales == {SELF: 20.0, CROSS: 4.0}


def test_tensors_of_alpha_come_first_and_then_the_nearest_configuration(tmp_path: Path) -> None:
    pairs = random_pairs()
    saved = PLACES["tensors"](NAMINGS["kohya"](pairs), 5.0)
    file = Saved(saved.tensors, {"ss_network_alpha": "9"}, {}).save(tmp_path / "cat" / "a.safetensors")
    check(read_factors(file, tmp_path), changes(pairs, 2.5))
    config = {"adapter_config.json": '{"lora_alpha": 3}', "../adapter_config.json": '{"lora_alpha": 7}'}
    file = Saved(NAMINGS["PEFT"](pairs), {}, config).save(tmp_path / "cat" / "b.safetensors")
    check(read_factors(file, tmp_path), changes(pairs, 1.5))
    (tmp_path / "cat" / "adapter_config.json").unlink()
    check(read_factors(file, tmp_path), changes(pairs, 3.5))
    assert not read_factors(file, tmp_path / "cat").states_alpha  # nothing above the folder is read


@pytest.mark.parametrize(
    ("metadata", "files", "message"),
    [
        ({"lora_alpha": "4", "network_alpha": "8"}, {}, "its metadata holds lora_alpha = 4 and network_alpha = 8"),
        ({"lora_alpha": "4"}, {"adapter_config.json": '{"lora_alpha": 8}'}, "is 4 by adapter_config.json and 2 by its"),
        ({"lora_alpha": "four"}, {}, "its metadata cannot be read: could not convert"),
        ({"lora_alpha": "0"}, {}, "not a number other than zero"),
        ({"lora_alpha": "nan"}, {}, "not a number other than zero"),
        ({"lora_adapter_metadata": "{"}, {}, "lora_adapter_metadata is not valid JSON"),
        ({"trainer": '{"net": {"network_alpha": 4}}'}, {}, r"holds trainer\.net\.network_alpha, which may be its α"),
        ({"my_alpha": "4"}, {}, "holds my_alpha, which may be its α"),
        ({}, {"adapter_config.json": "{"}, "adapter_config.json cannot be read: it is not valid JSON"),
        ({}, {"adapter_config.json": "[]"}, "it is not a JSON object"),
        ({}, {"adapter_config.json": '{"lora_alpha": 1, "alpha_pattern": {"(": 2}}'}, "adapter_config.json cannot be"),
        ({}, {"adapter_config.json": "version https://git-lfs.github.com/spec/v1\n"}, "is a Git LFS pointer"),
        ({}, {"adapter_config.json": '{"init_lora_weights": "pissa"}'}, "PiSSA|init_lora_weights: pissa"),
        ({}, {"adapter_config.json": '{"init_lora_weights": "corda"}'}, "path_initial_model_for_weight_conversion"),
        ({}, {"adapter_config.json": '{"use_dora": true}'}, "is a DoRA .* has no lora_magnitude_vector"),
    ],
)
def test_a_configuration_that_cannot_be_right_is_named(
    tmp_path: Path, metadata: dict[str, str], files: dict[str, str], message: str
) -> None:
    file = Saved(NAMINGS["diffusers"](random_pairs()), metadata, files).save(tmp_path / "a.safetensors")
    with pytest.raises(BadAdapter, match=message) as error:
        read_factors(file, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"ss_network_alpha": "Dynamic", "ss_network_dim": "Dynamic"},
        {"text_encoder.lora_alpha": "4"},
        {"ss_tag_frequency": json.dumps({"cats": {"alpha": 3, "lora_alpha": 1}})},
    ],
)
def test_what_says_nothing_of_the_diffusion_models_alpha_is_not_taken_for_it(
    tmp_path: Path, metadata: dict[str, str]
) -> None:
    pairs = random_pairs()
    file = Saved(NAMINGS["diffusers"](pairs), metadata, {}).save(tmp_path / "a.safetensors")
    assert not read_factors(file, tmp_path).states_alpha
    check(read_factors(file, tmp_path, assumed="rank"), changes(pairs))
    check(read_factors(file, tmp_path, assumed=6.0), changes(pairs, 3.0))


def test_keys_that_cannot_be_placed_are_listed(tmp_path: Path) -> None:
    tensors = {f"encoder.{number}.lora_A.weight": np.ones((1, 2), np.float32) for number in range(5)}
    file = Saved({**NAMINGS["diffusers"](random_pairs()), **tensors}, {}, {}).save(tmp_path / "a.safetensors")
    with pytest.raises(BadAdapter, match=r"has encoder\.0\.lora_A\.weight, .* and 2 more, which may be .*put `unet\.`"):
        outline(file)


def test_a_file_of_text_encoders_alone_is_told_from_an_empty_one(tmp_path: Path) -> None:
    file = Saved({"text_encoders.clip_l.transformer.a.lora_A.weight": np.ones((1, 2))}, {}, {}).save(tmp_path / "a.sft")
    with pytest.raises(BadAdapter, match="holds layers of text encoders alone"):
        outline(file)


def test_files_that_are_something_else_say_what(tmp_path: Path) -> None:
    pointer, pickle = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    torch.save({"a": torch.ones(1)}, pickle)
    with pytest.raises(BadAdapter, match=r"Git LFS pointer.*git lfs pull"):
        outline(pointer)
    with pytest.raises(BadAdapter, match=r"PyTorch pickle.*convert"):
        outline(pickle)


def tensors_and_metadata(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(file, framework="numpy") as opened:
        return load_file(file), dict(opened.metadata() or {})


def corrupt(file: Path, kind: str, at: float) -> None:
    """One fault in a valid adapter folder; `at`: where, in [0, 1)."""
    if kind == "cut":
        os.truncate(file, int(at * file.stat().st_size))
        return
    if kind == "header byte":
        data = bytearray(file.read_bytes())
        size = int.from_bytes(data[:8], "little")
        data[int(at * (8 + size))] ^= 0x11
        file.write_bytes(bytes(data))
        return
    config = file.with_name("adapter_config.json")
    if kind == "config cut":
        if config.exists():
            config.write_text(config.read_text()[: int(at * len(config.read_text()))])
        return
    if kind == "config gone":
        config.unlink(missing_ok=True)
        return
    tensors, metadata = tensors_and_metadata(file)
    key = sorted(tensors)[int(at * len(tensors))]
    if kind == "tensor gone":
        del tensors[key]
    elif kind == "tensor renamed":
        tensors[key + ".old"] = tensors.pop(key)
    elif kind == "tensor short":
        tensors[key] = tensors[key].reshape(-1)[:-1] if tensors[key].ndim else np.zeros(2)
    elif kind == "tensor transposed":
        tensors[key] = np.ascontiguousarray(tensors[key].T)
    elif kind == "NaN":
        tensors[key] = np.full_like(tensors[key], np.nan)
    elif kind == "metadata gone":
        metadata = {}
    elif kind == "metadata cut":
        metadata = {name: value[: int(at * len(value))] for name, value in metadata.items()}
    save_file(tensors, file, metadata=metadata)


KINDS = ("cut", "header byte", "config cut", "config gone", "tensor gone", "tensor renamed", "tensor short")
MORE = ("tensor transposed", "NaN", "metadata gone", "metadata cut")


@settings(SLOW, max_examples=150)
@given(
    naming=st.sampled_from(["PEFT", "diffusers", "kohya", "ComfyUI"]),
    place=st.sampled_from(sorted(set(PLACES) - {"../adapter_config.json"})),
    kind=st.sampled_from([*KINDS, *MORE]),
    at=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**20),
)
def test_a_fault_in_a_valid_folder_changes_nothing_or_is_an_error_but_never_gives_another_change(
    naming: str, place: str, kind: str, at: float, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = [random_pairs(seed + row, rank=3) for row in range(4)]
        names = [f"{label}/{run}" for label in ("cat", "dog") for run in ("0", "1")]
        for pairs, name in zip(rows, names, strict=True):
            PLACES[place](NAMINGS[naming](pairs), 7.0).save(root / "loras" / name / "a.safetensors")
        corrupt(root / "loras" / names[seed % 4] / "a.safetensors", kind, at)
        try:
            adapters.load(root / "store", path=root / "loras")
        except UserError as error:
            message = str(error)
        else:
            message = names[seed % 4]
            store = AdapterStore(root / "store")
            for module in (SELF, CROSS):
                up, down, scale = store.product(module)
                for row, pairs in enumerate(rows):
                    expected = changes(pairs, 7.0 / 3)[module]
                    got = scale[row] * up[row].astype(np.float64) @ down[row].astype(np.float64)
                    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert "\n" not in message
    assert names[seed % 4] in message or "differs from most" in message
