"""What is known of ranks from outside: their host, their parent, why one is gone, the nodes they use, their log."""

import json
import os
import subprocess
import sys

import pytest

from data_parallel.small import HEAD, HERE, MODEL, TRAINING, build_tokens
from plumbline.core.errors import UserError
from plumbline.core.run.processes import oom_kill_count
from plumbline.data_parallel.comparison import ComparisonSpec, comparison
from plumbline.data_parallel.ranks.board import State, host_number, read
from plumbline.data_parallel.ranks.launch import AGENT, run_ranks
from plumbline.data_parallel.ranks.room import node_count
from plumbline.data_parallel.ranks.rounds import together
from plumbline.data_parallel.ranks.watch import blame
from plumbline.data_parallel.settings import ComparisonSettings

RUN_AND_LEAVE = """
import sys
from pathlib import Path
from plumbline.data_parallel.comparison import ComparisonSpec, comparison
from plumbline.data_parallel.ranks.board import Slot
slot = Slot(Path(sys.argv[1]), 0)
for step in range(3):
    slot.beat(step)
"""


def test_hosts_whose_names_begin_alike_differ_and_so_do_boots_of_one_name():
    numbers = [host_number(name, boot) for name in ("compute-001", "compute-002") for boot in ("a", "b")]
    assert len(set(numbers)) == 4
    assert host_number("compute-001", "a") == numbers[0]


def test_rank_that_is_gone_is_out_of_memory_if_the_kernel_has_killed_since_the_start(tmp_path):
    subprocess.run([sys.executable, "-c", RUN_AND_LEAVE, str(tmp_path)], check=True)
    with pytest.raises(MemoryError, match=r"rank 0: the kernel ended it in step 2 for lack of memory"):
        blame(tmp_path, 1, oom_kill_count() - 1)
    with pytest.raises(UserError, match="ended in step 2 without a word"):
        blame(tmp_path, 1, oom_kill_count())


def test_rank_whose_torchrun_is_gone_ends_at_once_whoever_adopted_it(tmp_path):
    """This process is not the torchrun that the rank is told of, as a subreaper would not be."""
    ended = subprocess.run(
        [sys.executable, "-m", "plumbline.data_parallel.ranks.train", str(tmp_path)],
        env=os.environ | {AGENT: str(os.getpid() + 1), "RANK": "0"},
        check=False,
    )
    assert ended.returncode == 1
    assert read(tmp_path, 1) == []


def test_a_turn_lasts_the_mean_over_ranks_of_their_own_times(tmp_path, monkeypatch):
    """By their clocks rank 0 takes a second and rank 1 two."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE.parents[1] / "workflow")]))
    request = {"model": MODEL.model_dump(mode="json"), "training": TRAINING.model_dump(mode="json"), "device": "cpu"}
    request |= {"seed": 0, "steps": 1, "tokens": str(build_tokens(tmp_path / "tokens"))}
    request["candidates"] = [
        {"name": scaling, "method": method, "world": 2, "scaling": scaling, "threads": 1}
        for scaling, method in (("independent", None), ("strong", "ddp"))
    ]
    found = run_ranks("data_parallel.clocked", request, world=2, folder=tmp_path / "board", timeout=60)
    assert found == [1.5, 1.5]


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Runs three launches of `launched` on two ranks; what rank 0 answers."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE.parents[1] / "workflow")]))

    def run(leaves: list[int] | None = None, signalled: str = ""):
        request = {"device": "cpu", "launches": 3, "leaves": leaves, "signalled": signalled}
        return run_ranks("data_parallel.launched", request, world=2, folder=tmp_path / "board", timeout=60)

    return run


def test_each_launch_is_a_new_process_of_ranks_that_are_started_once(launched):
    found = launched()
    assert len(found) == 3
    assert len({one["pid"] for ranks in found for one in ranks}) == 6
    assert len({one["parent"] for ranks in found for one in ranks}) == 2


def test_a_rank_that_leaves_in_a_later_launch_is_named(launched):
    with pytest.raises(UserError, match=r"rank 1 .* ended in step 0 without a word"):
        launched(leaves=[1, 1])


@pytest.mark.parametrize("moment", ["while the ranks agree", "after they have agreed for the last time"])
def test_a_signal_to_one_rank_stops_all(launched, tmp_path, moment):
    with pytest.raises(KeyboardInterrupt):
        launched(signalled=moment)
    assert [one.state for one in read(tmp_path / "board", 2)] == [State.INTERRUPTED] * 2


def test_one_process_in_a_job_of_two_nodes_uses_one(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    assert [node_count(world) for world in (1, 2, 4)] == [1, 2, 2]


@pytest.mark.parametrize(("place", "own"), [("training", None), ("comparison", 96)])
def test_comparison_whose_batch_is_larger_than_the_corpus_names_both_numbers(tmp_path, place, own):
    large = TRAINING.model_copy(update={"batch": 96})
    settings = ComparisonSettings(batch=own)
    wanted = {"model": MODEL, "training": large, "comparison": settings, "worlds": [1], "seed": 0}
    spec = ComparisonSpec(**wanted, scalings=["strong"], device="cpu", **HEAD)
    meta = build_tokens(tmp_path)
    count = json.loads(meta.read_text())["splits"]["train"]["sequences"]
    with pytest.raises(UserError, match=rf"{place}\.batch: 96 is more than the {count} sequences to train on"):
        comparison(spec, meta, tmp_path / "speed.json")


def test_rounds_and_all_reduces_of_all_launches_are_kept_with_the_launch_they_belong_to():
    def launch(speed: float) -> dict:
        names = ["1 process", "control", "ddp strong 2"]
        turns = [{"name": name, "seconds": [1.0, 1.0, 1.0]} for name in names[:2]]
        turns.append({"name": names[2], "seconds": [1 / speed, 1 / speed, 1 / speed]})
        reduces = [{"world": 2, "bytes": 64, "seconds": [speed]}]
        return {"candidates": turns, "orders": [[0, 1, 2]] * 3, "all_reduces": reduces, "waited_percent": [speed]}

    found = together([launch(1.5), launch(1.5)], launches=3, precision=0.05)
    assert found["launches"] == [0, 0, 0, 1, 1, 1]
    assert found["candidates"][2]["seconds"] == [1 / 1.5] * 6
    assert not found["precise"]  # two launches do not show how far launches differ
    assert together([launch(1.5)] * 3, launches=3, precision=0.05)["precise"]
    assert not together([launch(1.5), launch(1.6), launch(1.9)], launches=3, precision=0.05)["precise"]
    assert found["all_reduces"] == [{"world": 2, "bytes": 64, "seconds": [1.5, 1.5]}]
    assert found["waited_percent"] == [1.5, 1.5]
