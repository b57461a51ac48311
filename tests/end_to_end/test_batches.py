"""Trials that share a job: each stays a target of its own, made once, whatever becomes of the others."""

import copy
import json
import os
import re
import signal
import time

import pytest

from house import TINY, TRIALS, House, contents
from plumbline.core.run.progress import read_journal

NOTHING = "Nothing to be done"
BATCHES = 3
"""Of TRIALS trials, with four a job."""


@pytest.fixture
def batched(house) -> House:
    """The finished house, with a config that has four trials share a job, and none of the trials."""
    settings = copy.deepcopy(TINY)
    settings["ablation"]["trials_per_job"] = 4
    house.configure(settings)
    for path in trials(house):
        path.unlink()
    return house


def trials(house):
    return sorted((house.study / "trials").rglob("*.json"))


def started(house):
    """Trial -> how many times a process began it."""
    journals = sorted((house.study / "logs" / "train").rglob("*.jsonl"))
    return {path: sum(event.get("event") == "start" for event in read_journal(path)) for path in journals}


def jobs(house, *arguments):
    """Jobs of a dry run that train, by rule."""
    return {rule: count for rule, count in house.waiting(*arguments).items() if rule.startswith("ablation_train")}


def test_trials_of_batches_are_those_of_single_jobs_and_each_is_made_again_alone(batched, finished_house):
    assert jobs(batched) == {f"ablation_train_{number}": 1 for number in range(BATCHES)}
    batched.snakemake()
    assert contents(batched) == contents(finished_house)
    assert NOTHING in batched.snakemake()

    before = {path: path.read_bytes() for path in trials(batched)}
    assert len(before) == TRIALS
    gone = trials(batched)[0]
    gone.unlink()
    assert sum(jobs(batched).values()) == 1
    batched.snakemake()
    assert [path for path in trials(batched) if path.read_bytes() != before[path]] == [gone]
    assert NOTHING in batched.snakemake()

    assert sum(jobs(batched, "--forcerun", "ablation_train").values()) == BATCHES
    counts = started(batched)
    batched.snakemake("--forcerun", "ablation_train_1")
    again = [path for path, count in started(batched).items() if count != counts[path]]
    assert len(again) in (TRIALS // BATCHES, TRIALS // BATCHES + 1)
    assert contents(batched) == contents(finished_house)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_killed_run_has_made_of_a_batch_is_not_made_again(batched, finished_house, number):
    counts = started(batched)
    process = batched.start()
    while len(trials(batched)) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, number)
    process.wait()
    assert number == signal.SIGKILL or not list(batched.study.rglob(".*.kept"))
    made = {path: json.loads(path.read_text()) for path in trials(batched)}
    assert 2 <= len(made) < TRIALS
    batched.snakemake()
    assert {path: json.loads(path.read_text()) for path in made} == made
    assert contents(batched) == contents(finished_house)
    assert max(count - counts[path] for path, count in started(batched).items()) <= 2
    assert not list(batched.study.rglob(".*.kept"))


def test_all_but_the_trial_that_failed_are_there_after_each_run_and_it_alone_is_made_again(batched, finished_house):
    features = batched.study / "features/product/flat.safetensors"
    whole = features.read_bytes()
    features.write_bytes(b"not a tensor")
    for _ in range(2):
        said = batched.snakemake(succeeds=False)
        logs = sorted((batched.study / "logs/train").rglob("flat.log"))
        for log in logs:
            assert re.search(
                rf"FAILED ablation_train_\d: .*{log.relative_to(batched.root)}: \S.*flat.safetensors", said
            )
        assert len(trials(batched)) == TRIALS - len(logs)
        status = json.loads(batched.plumbline("status", "--json", "--configfile", "tiny.yaml", "--study", "ablation"))
        assert [one["done"] for one in status["stages"] if one["stage"] == "train"] == [TRIALS - len(logs)]
        assert not list(batched.study.rglob(".*.kept"))
    features.write_bytes(whole)
    counts = started(batched)
    batched.snakemake()
    assert {path.stem for path, count in started(batched).items() if count != counts[path]} == {"flat"}
    assert contents(batched) == contents(finished_house)


@pytest.mark.parametrize("asked", [["--force"], ["ablation", "--forcerun"]])
def test_a_file_that_is_forced_is_made_again_and_the_rest_of_its_batch_is_not(batched, asked):
    batched.snakemake()
    before = {path: path.read_bytes() for path in trials(batched)}
    forced = trials(batched)[0]
    batched.snakemake(*asked, str(forced.relative_to(batched.root)))
    assert [path for path in trials(batched) if path.read_bytes() != before[path]] == [forced]


def configure(house, per_job, **training):
    settings = copy.deepcopy(TINY)
    settings["ablation"]["trials_per_job"] = per_job
    settings["ablation"]["training"] |= training
    house.configure(settings)


def test_a_change_of_how_many_trials_share_a_job_runs_nothing_and_hides_nothing(house):
    for per_job, stale in ((4, BATCHES), (3, BATCHES + 1), (1, TRIALS), (4, BATCHES)):
        configure(house, per_job)
        assert NOTHING in house.snakemake()
        configure(house, per_job, hidden=16)
        assert sum(jobs(house).values()) == stale
    configure(house, 4, hidden=16)
    house.snakemake()
    configure(house, 1, hidden=16)
    assert NOTHING in house.snakemake()
    trials(house)[0].unlink()
    assert jobs(house) == {"ablation_train": 1}


@pytest.mark.parametrize("changed", [False, True])
def test_features_that_were_replaced_by_others_make_their_trials_again_and_no_others(batched, changed):
    batched.snakemake()
    features, counts = batched.study / "features/factor/spectral.safetensors", started(batched)
    content = bytearray(features.read_bytes())
    content[-4] ^= changed  # the lowest bit of the last number
    features.unlink()
    features.write_bytes(content)
    batched.snakemake()
    again = {path for path, count in started(batched).items() if count != counts[path]}
    names = {(path.parts[-3], path.stem) for path in again}
    assert names == ({("factor", "spectral"), ("factor", "pair")} if changed else set())
    assert len(again) == 2 * len(names)  # with all layers and with some
    assert NOTHING in batched.snakemake()


def test_forced_features_make_all_trials_again(batched):
    batched.snakemake()
    counts = started(batched)
    batched.snakemake("ablation", "--forcerun", "ablation_features")
    assert started(batched) == {path: count + 1 for path, count in counts.items()}


def test_an_edited_representation_makes_its_trials_again_and_no_others_of_their_batches(batched):
    batched.snakemake()
    batched.edit("ablation/representations/flat.py", "return entries(stack)", "return entries(stack) * 1")
    stale = {path for path in trials(batched) if path.stem == "flat"}
    before = {path: path.read_bytes() for path in trials(batched)}
    batched.snakemake()
    assert {path for path in before if path.read_bytes() != before[path]} == stale
    assert NOTHING in batched.snakemake()


def test_what_is_said_of_the_resources_of_a_trial_is_said_of_its_batch(batched):
    given = ("ablation_train:mem_mb=12345", "ablation_train:runtime=9", "ablation_train_1:runtime=7")
    said = batched.snakemake(
        "--dry-run", "-p", "--set-resources", *given, "--set-threads", "ablation_train=2", "ablation_train_0=1"
    )
    texts = re.findall(r"^rule ablation_train_(\d):\n(.*?)^Shell", said, flags=re.MULTILINE | re.DOTALL)
    assert {number: "mem_mb=12345," in text for number, text in texts} == {"0": True, "1": True, "2": True}
    assert {number: re.search(r"runtime=(\d+)", text)[1] for number, text in texts} == {"0": "9", "1": "7", "2": "9"}
    assert {number: "threads: 2" in text for number, text in texts} == {"0": False, "1": True, "2": True}


def test_a_batch_that_fails_over_older_records_makes_all_of_them_again_and_none_twice(house, finished_house):
    settings = copy.deepcopy(TINY)
    settings["ablation"] |= {"trials_per_job": 4, "runs": 3}
    house.configure(settings)
    house.snakemake("results/ablation/splits.safetensors")
    features = house.study / "features/product/flat.safetensors"
    whole = features.read_bytes()
    features.write_bytes(b"not a tensor")
    said = house.snakemake(succeeds=False)
    assert "FAILED ablation_train_" in said
    counts = started(house)
    features.write_bytes(whole)
    house.snakemake()
    runs = [json.loads(path.read_text())["spec"]["runs"] for path in trials(house)]
    assert runs == [3] * TRIALS
    again = {path.stem for path, count in started(house).items() if count != counts[path]}
    assert again == {"flat"}
    assert NOTHING in house.snakemake()
