"""Trials trained in one process ahead of their jobs are still targets: each is resumed, rerun and reported alone."""

import copy
import json
import subprocess
import time

import pytest

from house import TINY, TRIALS, comparable, kill_group
from plumbline.core.run.progress import read_journal

NOTHING = "Nothing to be done"


def remove_trials(house):
    subprocess.run(["rm", "-r", house.study / "trials"], check=True)


def journals(house):
    """Trial -> the events of its journal that say where an attempt starts and how it ends."""
    folder = house.study / "logs" / "train"
    return {
        str(path.relative_to(folder).with_suffix("")): [
            event["event"] for event in read_journal(path) if "event" in event
        ]
        for path in sorted(folder.rglob("*.jsonl"))
    }


def waiting_records(house):
    return list(house.study.glob("trials/*/*/.*?.ahead"))


def trials_in(state, house):
    """Names of the trials that `plumbline status` gives this state."""
    targets = json.loads(house.plumbline("status", "--json", "--configfile", "tiny.yaml"))["targets"]
    return {one["target"]["name"] for one in targets if one["target"]["stage"] == "train" and one["state"] == state}


def records(house):
    return {path: comparable(json.loads(path.read_text())) for path in (house.study / "trials").rglob("*.json")}


@pytest.mark.parametrize("ahead", [True, False])
def test_record_trained_ahead_is_the_one_that_its_own_job_makes(house, ahead):
    before = records(house)
    house.configure({**TINY, "ablation": {**TINY["ablation"], "train_ahead": ahead}})
    remove_trials(house)
    house.snakemake()
    assert records(house) == before
    assert len(before) == TRIALS
    said = [path.read_text() for path in (house.study / "logs" / "train").rglob("*.log")]
    assert sum(text.startswith("renamed") for text in said) == (TRIALS if ahead else 0)


def test_changing_where_trials_are_trained_makes_none_of_them_stale(house):
    house.configure({**TINY, "ablation": {**TINY["ablation"], "train_ahead": False}})
    assert house.waiting() == {"ablation_train_ahead": 4}
    house.snakemake()
    assert all(events == ["start", "end"] for events in journals(house).values())


def test_edit_that_makes_some_trials_stale_trains_only_these_again(house):
    house.edit("ablation/representations/simple_stats.py", "np.stack(columns", "np.stack(list(columns)")
    house.snakemake()
    again = {trial for trial, events in journals(house).items() if events == ["start", "end"] * 2}
    places = ("factor/all_layers", "factor/visual_only")
    assert again == {f"{place}/{name}" for place in places for name in ("simple_stats", "pair")}
    assert NOTHING in house.snakemake()


def test_killed_process_keeps_the_records_it_has_made_and_goes_on_with_the_rest(house):
    settings = copy.deepcopy(TINY)
    settings["ablation"] |= {"runs": 20, "layers": ["all_layers"]}
    settings["ablation"]["representations"] = {"factor": TINY["ablation"]["representations"]["factor"]}
    settings["ablation"]["training"] |= {"max_epochs": 60, "hidden": 64}
    house.configure(settings)
    remove_trials(house)
    subprocess.run(["rm", "-r", house.study / "logs" / "train"], check=True)
    process = house.start()
    deadline = time.monotonic() + 120
    while not waiting_records(house) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    kill_group(process)
    made = {path.name.split(".")[1] for path in waiting_records(house)}
    assert made
    assert trials_in("done", house) == {f"factor/all_layers/{name}" for name in made}
    house.snakemake()
    starts = {trial.rpartition("/")[2]: events.count("start") for trial, events in journals(house).items()}
    assert starts.keys() == {"simple_stats", "spectral", "pair"}
    assert all(starts[name] == 1 for name in made)
    assert not waiting_records(house)
    assert NOTHING in house.snakemake()


def test_trial_that_fails_leaves_the_others_and_is_reported_by_its_own_job(house):
    (house.study / "features/factor/spectral.safetensors").write_bytes(b"not a tensor")
    remove_trials(house)
    said = house.snakemake(succeeds=False)
    assert "Error in rule ablation_train:" in said
    assert "Error in rule ablation_train_ahead" not in said
    made = {str(path.relative_to(house.study / "trials").with_suffix("")) for path in records(house)}
    broken = {f"factor/{layers}/{name}" for layers in ("all_layers", "visual_only") for name in ("spectral", "pair")}
    assert len(made) == TRIALS - len(broken)
    assert made.isdisjoint(broken)
    assert trials_in("failed", house) == broken
