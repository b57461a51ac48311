"""Every method in every world ends with the parameters of one process; a mean of means does not."""

import os

import pytest
import torch

from data_parallel.small import HERE, MODEL, TRAINING, build_tokens
from plumbline.core.errors import UserError
from plumbline.data_parallel.ranks.equality import DTYPES
from plumbline.data_parallel.ranks.launch import run_ranks
from plumbline.data_parallel.record import Difference
from plumbline.data_parallel.settings import method_names
from plumbline.data_parallel.training.model import gpt2

RAGGED = TRAINING.model_copy(update={"batch": 12, "accumulation": 2})
"""The 95 sequences leave 11 for the last batch, so that ranks and micro-batches differ in their sequences."""


@pytest.fixture(scope="module")
def meta(tmp_path_factory):
    return build_tokens(tmp_path_factory.mktemp("tokens"))


def proved(module: str, meta, folder, worlds, methods) -> list[Difference]:
    request = {"model": MODEL.model_dump(mode="json"), "training": RAGGED.model_dump(mode="json"), "device": "cpu"}
    request |= {"methods": methods, "worlds": worlds, "steps": 20, "seed": 0, "tokens": str(meta)}
    found = run_ranks(module, request, world=max(worlds), folder=folder, timeout=60)
    return [Difference.model_validate(one) for one in found["differences"]]


@pytest.fixture(scope="module")
def differences(meta, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks") / "board"
    return proved("plumbline.data_parallel.ranks.equality", meta, folder, [1, 2, 4], method_names())


def test_ranks_end_with_the_parameters_of_one_process_within_each_method_s_bound(differences):
    assert len(differences) == 2 * 3 * 4
    assert all(one.outcome == "ok" for one in differences)
    assert [(one.method, one.world, one.dtype, one.largest) for one in differences if one.holds is False] == []
    promised = {(one.method, one.dtype): one.bound for one in differences}
    assert promised["ddp", "float32"] == promised["reference", "float32"] == promised["fsdp", "float32"] == 1e-5
    assert promised["ddp", "float64"] == promised["reference", "float64"] == promised["fsdp", "float64"] == 1e-10


def test_all_ranks_hold_the_same_parameters_to_the_bit(differences):
    assert all(one.ranks_agree for one in differences)


def test_gradients_in_bfloat16_send_half_the_bytes_and_differ_more(differences):
    found = {(one.method, one.world, one.dtype): one for one in differences}
    plain, half = found["ddp", 2, "float32"], found["ddp_bf16", 2, "float32"]
    assert half.wire_bytes_per_step == plain.wire_bytes_per_step / 2
    assert half.largest > 10 * plain.largest


def test_fully_sharded_ranks_hold_a_share_of_the_memory(differences):
    found = {(one.method, one.world, one.dtype): one.memory_bytes for one in differences}
    whole, shared = found["ddp", 4, "float32"], found["fsdp", 4, "float32"]
    for part in ("weights", "gradients", "optimizer"):
        assert shared[part] < 0.3 * whole[part]


@pytest.mark.parametrize("wrong", ["mean_of_means", "ascent"])
def test_every_method_s_promise_fails_on_wrong_training(wrong, meta, tmp_path, monkeypatch):
    """mean_of_means: the loss averages the ranks' own means. ascent: several ranks climb the loss."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE.parents[1] / "workflow")]))
    found = proved(f"data_parallel.{wrong}", meta, tmp_path / "board", [2], method_names())
    expected = {(name, dtype): False for name in method_names() for dtype in DTYPES}
    assert {(one.method, one.dtype): one.holds for one in found} == expected


FEW = [
    {"training": {"batch": 4}},
    {"model": {"layers": 3, "heads": 4, "width": 32}, "training": {"batch": 8, "accumulation": 1}},
]
"""Batches of few sequences, in which ranks differ most in their numbers of tokens."""
SHAPES = [
    *FEW,
    {"model": {"width": 64, "heads": 1}, "training": {"batch": 48, "learning_rate": 1e-4}},
    {"model": {"width": 24, "layers": 2}, "training": {"batch": 24, "warmup_steps": 0, "learning_rate": 1e-3}},
    {"model": {"embeddings": 2000}, "training": {"clip": None, "weight_decay": 0.1}, "steps": 60},
]
"""What differs from the model and the training of the other tests."""


@pytest.mark.parametrize(("wrong", "shapes"), [(False, SHAPES), (True, FEW)])
def test_the_bound_of_bfloat16_holds_for_any_shape_and_fails_on_a_mean_of_means(
    wrong, shapes, meta, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE.parents[1] / "workflow")]))
    request = {"model": MODEL.model_dump(mode="json"), "training": RAGGED.model_dump(mode="json"), "device": "cpu"}
    request |= {"methods": ["ddp_bf16"], "worlds": [2, 4], "seed": 0, "tokens": str(meta)}
    request |= {"shapes": shapes, "wrong": wrong}
    found = run_ranks("data_parallel.shapes", request, world=4, folder=tmp_path / "board", timeout=60)["shapes"]
    shares = [
        (number, each["world"], each["dtype"], each["relative"] / each["relative_bound"])
        for number, differences in enumerate(found)
        for each in differences
    ]
    assert len(shares) == len(shapes) * 4
    assert [each for each in shares if (each[-1] > 1) is not wrong] == []


def test_an_error_in_training_is_no_unavailable_method(meta, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE.parents[1] / "workflow")]))
    with pytest.raises(UserError, match="the shapes do not agree"):
        proved("data_parallel.broken", meta, tmp_path / "board", [2], ["fsdp"])


def test_a_step_sends_twice_its_share_of_the_gradients_and_tied_weights_count_once(differences):
    parameters = sum(each.numel() for each in gpt2(MODEL, 400, 1, 0, torch.device("cpu")).parameters())
    found = {(one.method, one.world, one.dtype): one.wire_bytes_per_step for one in differences}
    for name in ("ddp", "reference"):
        assert found[name, 2, "float32"] == parameters * 4
        assert found[name, 4, "float64"] == 2 * 3 / 4 * parameters * 8


def test_fully_sharded_ranks_send_what_torch_s_own_counter_of_collectives_counts(meta, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE.parents[1] / "workflow")]))
    request = {"model": MODEL.model_dump(mode="json"), "training": RAGGED.model_dump(mode="json"), "device": "cpu"}
    request |= {"tokens": str(meta)}
    found = run_ranks("data_parallel.counted", request, world=2, folder=tmp_path / "board", timeout=60)
    assert found["sent"] == found["claimed"]
