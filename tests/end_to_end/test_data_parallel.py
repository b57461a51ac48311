"""The whole `data_parallel` study at a tiny size, with real ranks: outputs, staleness, the proof."""

import json
import os

import pandas as pd
import pytest

from house import House, build, check_shown


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> House:
    """A house in which the tiny study was run."""
    house = build(tmp_path_factory.mktemp("trained") / "house", "data_parallel")
    house.snakemake()
    return house


def records(house: House) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in (house.study / "trials").glob("*/record.json")}


def test_each_rank_leaves_a_file_for_each_epoch_in_the_folder_of_its_own_trial(trained):
    for name, world in (("single", 1), ("ddp-strong-2", 2), ("ddp-weak-2", 2)):
        found = {path.name for path in (trained.study / "trials" / name).glob("rank*_epoch*.json")}
        assert found == {
            f"rank{rank}_{kind}_epoch{epoch}.json"
            for rank in range(world)
            for epoch in range(2)
            for kind in ("results", "gen")
        }


def test_the_table_of_trials_fits_the_terminal(trained):
    check_shown(trained)


def test_strong_scaling_ends_with_the_loss_of_one_process_and_weak_scaling_takes_half_the_steps(trained):
    found = records(trained)
    last = {name: record["epochs"][-1] for name, record in found.items()}
    loss = last["single"]["validation_loss"]
    assert last["ddp-strong-2"]["validation_loss"] == pytest.approx(loss, rel=1e-4)
    assert last["single"]["steps"] == last["ddp-strong-2"]["steps"] == 2 * last["ddp-weak-2"]["steps"] == 12


def test_the_ranks_of_an_epoch_share_its_sequences(trained):
    meta = json.loads((trained.study / "tokens" / "meta.json").read_text())
    for record in records(trained).values():
        epochs = pd.DataFrame(record["epochs"])
        assert set(epochs.groupby("epoch")["sequences"].sum()) == {meta["splits"]["train"]["sequences"]}


def test_exact_methods_equal_one_process_and_rounded_gradients_stay_close(trained):
    proof = json.loads((trained.study / "proofs" / "equality.json").read_text())
    assert all(one["outcome"] == "ok" and one["ranks_agree"] for one in proof["differences"])
    promised = [one for one in proof["differences"] if one["bound"] is not None]
    assert len(promised) == 6
    assert [one for one in promised if one["largest"] > one["bound"]] == []
    rounded = [one for one in proof["differences"] if one["method"] == "ddp_bf16"]
    assert len(rounded) == 2
    assert all(0 < one["relative"] < 0.05 for one in rounded)  # the promise of 0.4% is about the default's size


def test_trials_that_are_done_need_no_room(trained):
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # one core, for two ranks
    try:
        assert "Nothing to be done" in trained.snakemake()
    finally:
        os.sched_setaffinity(0, cores)


def test_second_run_has_nothing_to_do_and_a_deleted_trial_alone_is_trained_again(trained):
    assert "Nothing to be done" in trained.snakemake()
    (trained.study / "trials" / "ddp-weak-2" / "record.json").unlink()
    jobs = trained.waiting()
    assert {rule: count for rule, count in jobs.items() if rule != "data_parallel"} == {
        "data_parallel_train": 1,
        "data_parallel_summarize": 1,
        "data_parallel_figures": 1,
        "data_parallel_notebook": 1,
    }
