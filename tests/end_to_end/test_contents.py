"""`throughput` depends on what the best model and the corpus hold, not on how they came about."""

import copy
import json
import shutil

import pytest

from house import TINY, House, build

SETTINGS = {study: copy.deepcopy(TINY[study]) for study in ("lr_sweep", "throughput")}
SETTINGS["lr_sweep"] |= {"extend": False, "refine": False}
LOSING, WINNING = 1e-6, 0.03
MEASURED = 6


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> House:
    """A house in which both studies were run. Each test adds to its sweep what the one before it has left."""
    house = build(tmp_path_factory.mktemp("contents") / "house", "throughput")
    house.configure(SETTINGS)
    house.snakemake()
    assert "Nothing to be done" in house.snakemake()
    return house


def times(house: House) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in (house.study / "trials").rglob("*.json")}


def best_content(house: House) -> str:
    return json.loads((house.root / "results/lr_sweep/best_model/manifest.json").read_text())["content_sha256"]


def add_rate(house: House, rate: float) -> None:
    SETTINGS["lr_sweep"]["learning_rates"].append(rate)
    house.configure(SETTINGS)


def test_losing_rate_measures_nothing_again_and_a_dry_run_says_what_decides(measured):
    before, content = times(measured), best_content(measured)
    add_rate(measured, LOSING)
    text = measured.snakemake("--dry-run")
    assert "lr_sweep/best is stale: 16 finished targets rerun only if its content changes" in text
    measured.snakemake()
    assert best_content(measured) == content
    assert times(measured) == before
    assert len(before) == MEASURED
    assert "Nothing to be done" in measured.snakemake()


def test_lost_snakemake_folder_measures_nothing_again(measured):
    shutil.rmtree(measured.root / ".snakemake")
    assert "Nothing to be done" in measured.snakemake()


def test_deleted_trial_and_a_losing_rate_run_that_trial_alone(measured):
    """What is not there is measured after the upstream study, and nothing else."""
    shutil.rmtree(measured.root / ".snakemake" / "metadata", ignore_errors=True)
    measured.snakemake("--forcerun", "throughput_base")  # traced again
    before = times(measured)
    deleted = measured.study / "trials" / "base" / "lean" / "b1-p4-g6.json"
    deleted.unlink()
    add_rate(measured, LOSING / 2)
    measured.snakemake()
    assert {path for path, _ in times(measured) - before} == {str(deleted)}


def test_other_best_model_is_measured_in_the_same_run(measured):
    before, content = times(measured), best_content(measured)
    add_rate(measured, WINNING)
    measured.snakemake()
    assert best_content(measured) != content
    assert not times(measured) & before
    assert len(times(measured)) == MEASURED
    assert "Nothing to be done" in measured.snakemake()
    status = json.loads(measured.plumbline("status", "--json", "--configfile", "tiny.yaml"))
    states = {target["state"] for target in status["targets"] if target["target"]["study"] == "throughput"}
    assert states == {"done"}
