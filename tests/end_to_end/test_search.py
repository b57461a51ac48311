"""Searches and halving through Snakemake: rounds in turn, kills at random, more trials, a longer time limit."""

import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from house import House, build, comparable, kill_group

KILLS, LONGEST_SECONDS, WITHIN_SECONDS = 8, 6.0, 400.0
FUNCTION = """
import json, random, time

def run(settings, *, seed, folder, report):
    path = folder / "at.json"
    step, score = json.loads(path.read_text()) if path.exists() else (0, 0.0)
    while step < settings.get("epochs", 3):
        step += 1
        score += (1 - (settings["x"] - 2) ** 2 - score) / 2 + random.Random(f"{seed} {step}").gauss(0, 0.01)
        time.sleep(0.03)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps([step, score]))
        partial.rename(path)
    return {"score": score}
"""
COMMON = {"run": "mine:run", "seeds": [0, 1], "metric": {"name": "score", "goal": "max"}}
X = {"x": {"low": -1.0, "high": 5.0}}
HALVING = {"budget": "epochs", "low": 2, "high": 8, "factor": 2}
SWEEPS = {
    "drawn": COMMON | {"search": {"sampler": "random", "trials": 4, "space": X}},
    "even": COMMON | {"search": {"sampler": "qmc", "trials": 6, "space": X}, "halving": HALVING},
    "led": COMMON | {"search": {"sampler": "tpe", "trials": 5, "batch": 3, "space": X}, "points": [{"x": 0.5}]},
}


def searching(root: Path) -> House:
    """A house with a sweep of each sampler, one of them with halving."""
    house = build(root, "sweep")
    (house.root / "mine.py").write_text(FUNCTION)
    house.configure({"sweep": {"digits_mlp": None} | SWEEPS})
    return house


def written(house: House) -> dict[str, object]:
    """Every record and decision."""
    files = sorted([*house.study.glob("*/trials/*/*.json"), *house.study.glob("*/rounds/*.json")])
    return {str(path.relative_to(house.study)): comparable(json.loads(path.read_text())) for path in files}


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> House:
    """A house in which the searches were run. A test that changes it restores nothing: they run in this order."""
    house = searching(tmp_path_factory.mktemp("searched") / "house")
    house.snakemake()
    return house


def test_every_round_runs_and_a_second_run_has_nothing_to_do(searched):
    found = [path.split("/") for path in written(searched)]
    counts = {name: [sum(of[:2] == [name, kind] for of in found) for kind in ("trials", "rounds")] for name in SWEEPS}
    assert counts == {"drawn": [8, 0], "even": [2 * (6 + 3 + 1), 2], "led": [2 * 6, 2]}
    assert (searched.study / "led" / "figures" / "progress.png").exists()
    assert "Nothing to be done" in searched.snakemake()


def test_searches_killed_at_random_end_with_the_same_trials_and_records(searched, tmp_path):
    house, seed = searching(tmp_path / "house"), random.randrange(2**32)
    moments, killed, deadline = random.Random(seed), 0, time.monotonic() + WITHIN_SECONDS
    while time.monotonic() < deadline and killed < KILLS:
        process = house.start()
        try:
            process.wait(3.0 + moments.uniform(0, LONGEST_SECONDS))
        except subprocess.TimeoutExpired:
            kill_group(process)
            killed += 1
        else:
            break
    assert killed >= 3, f"only {killed} kills, seed {seed}"
    house.snakemake()
    assert written(house) == written(searched), f"differs after kills with seed {seed}"


def test_a_deleted_record_runs_again_and_the_decisions_that_read_it_stay(searched):
    before = written(searched)
    gone = next((searched.study / "led" / "trials").glob("*/seed0.json"))
    gone.unlink()
    searched.snakemake()
    assert written(searched) == before


def test_more_trials_add_only_what_is_missing(searched):
    before = written(searched)
    more = {name: sweep | {"search": sweep["search"] | {"trials": 7}} for name, sweep in SWEEPS.items()}
    searched.configure({"sweep": {"digits_mlp": None, "even": None, "drawn": more["drawn"], "led": more["led"]}})
    # tpe has one point of round 1 left, and its next round follows that.
    assert searched.waiting()["sweep_run"] == 2 * (3 + 1)
    searched.snakemake()
    after = written(searched)
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 2 * 3 + 2 * 2 + 1


def test_a_longer_time_limit_runs_the_trials_again_that_met_a_shorter_one(tmp_path):
    house = build(tmp_path / "house", "sweep")
    line = "sleep {x}; echo '{{\"score\": 1}}' > {folder}/metrics.json"
    slow = {"command": line, "grid": {"x": [0, 2.5, 600]}, "metric": {"name": "score", "goal": "max"}}

    def limited(timeout: str | None) -> None:
        house.configure({"sweep": {"digits_mlp": None, "slow": slow | {"timeout": timeout}}})

    def outcomes() -> dict[float, str]:
        records = [json.loads(path.read_text()) for path in (house.study / "slow").glob("trials/*/seed0.json")]
        return {record["parameters"]["x"]: record["outcome"] for record in records}

    limited("1 s")
    house.snakemake()
    assert outcomes() == {0: "ok", 2.5: "timeout", 600: "timeout"}
    limited("6 s")
    assert house.waiting()["sweep_run"] == 2
    assert "stopped_at_seconds: nothing → 1.0" in house.plumbline("status", "--configfile", "tiny.yaml")
    house.snakemake()
    assert outcomes() == {0: "ok", 2.5: "ok", 600: "timeout"}
    assert "Nothing to be done" in house.snakemake()
    limited("2 s")
    assert "Nothing to be done" in house.snakemake()
    limited(None)
    assert house.waiting()["sweep_run"] == 1
