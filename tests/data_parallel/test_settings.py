"""What a user may get wrong in the block `data_parallel`, each in one line."""

import json

import pytest

from plumbline import config as configuration
from plumbline.core.errors import UserError
from plumbline.data_parallel import comparison
from plumbline.data_parallel.plan import plan
from plumbline.data_parallel.ranks import room
from plumbline.data_parallel.ranks.compare import offered
from plumbline.data_parallel.settings import DataParallelSettings


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"training": {"batch": 6}, "worlds": [1, 4]}, "training.batch: 6 does not divide by 4 ranks × accumulation 1"),
        ({"comparison": {"batch": 9}}, "comparison.batch: 9 does not divide by 2 ranks"),
        ({"training": {"batch": 4, "accumulation": 4}}, "make it a multiple of 8"),
        ({"methods": ["dpp"]}, "no method 'dpp'; choose from ddp, ddp_bf16, fsdp, reference"),
        ({"corpus": {"source": "files"}}, "files.train: needs one file, or a German and an English one"),
        ({"corpus": {"hub": {"id": "x"}}}, "hub: set, but source is 'grammar'"),
        ({"worlds": [2, 2]}, "2 is named twice"),
        ({"model": {"heads": 3}}, r"heads \(3\) must divide width \(128\)"),
    ],
)
def test_mistakes_are_named(block, message):
    with pytest.raises(UserError, match=message):
        configuration.check({"data_parallel": block})


def test_the_batch_of_training_decides_neither_the_comparison_nor_the_proof():
    """The proof has two sequences for each of two ranks in each of four micro-batches."""
    plans = [
        {target.stage: target for target in configuration.check({"data_parallel": {"training": training}}).plan()}
        for training in ({"batch": 24, "accumulation": 4}, {"batch": 48, "accumulation": 4})
    ]
    for stage in ("comparison", "equality"):
        first, second = (json.loads(plan[stage].spec) for plan in plans)
        assert first == second
    assert first["training"]["batch"] == 16


def test_weak_scaling_alone_needs_no_batch_that_the_ranks_divide():
    block = {"training": {"batch": 3}, "comparison": {"batch": 5}, "scalings": ["weak"], "worlds": [1, 2]}
    configuration.check({"data_parallel": block})


def test_more_ranks_than_cores_are_refused_unless_one_insists(monkeypatch):
    monkeypatch.setattr(room, "core_count", lambda: 2)
    room.check_room(2, "cpu", oversubscribe=False)
    with pytest.raises(UserError, match=r"4 ranks, but this host has 2 cores; .*oversubscribe: true"):
        room.check_room(4, "cpu", oversubscribe=False)
    room.check_room(4, "cpu", oversubscribe=True)


def test_more_ranks_than_gpus_are_refused_and_without_gpus_cores_count(monkeypatch):
    monkeypatch.setattr(room, "core_count", lambda: 64)
    monkeypatch.setattr(room, "gpu_count", lambda: 2)
    room.check_planned({"world": 2}, "auto", oversubscribe=False)
    with pytest.raises(UserError, match="4 ranks, but this host has 2 GPUs; lower it or set device: cpu"):
        room.check_planned({"worlds": [1, 4]}, "auto", oversubscribe=True)
    room.check_planned({"worlds": [1, 4]}, "cpu", oversubscribe=False)


def test_threads_are_a_candidate_on_a_cpu_alone(monkeypatch):
    (target,) = (each for each in plan(DataParallelSettings(), 0, {}, "auto") if each.stage == "comparison")
    spec = comparison.ComparisonSpec.model_validate_json(target.spec)
    monkeypatch.setattr(comparison, "core_count", lambda: 2)
    everything = comparison.candidates(spec)
    assert offered(everything, "cpu") == everything
    assert [one for one in everything if one not in offered(everything, "cuda")] == [everything[1]]
    assert everything[1]["threads"] == 2


def test_the_notebook_s_spec_holds_the_code_of_its_cells_and_the_trials_the_device():
    targets = {each.stage: each for each in plan(DataParallelSettings(), 0, {}, "cuda")}
    reached = set(targets["notebook"].code)
    assert {"data_parallel.plots.curves.scaling", "data_parallel.summarize.equality_table"} <= reached
    assert '"device":"cuda"' in targets["train"].spec.replace(": ", ":")
