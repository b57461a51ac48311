"""Only a run that runs jobs takes the lock and renames stale outputs; everything else just looks."""

import copy
import fcntl
import shutil

import pytest

from house import TINY, check_shown

LOOKS = [
    *(["-n"], ["-np"], ["-nq"], ["-nF"], ["--dag"], ["--summary"], ["--report", "report.html"]),
    *(["--lint"], ["--list-rules"], ["--list-changes", "params"], ["--unlock"]),
]


@pytest.fixture(scope="module")
def stale_house(finished_house, tmp_path_factory):
    """A house with stale trials that Snakemake knows nothing of. Not to be changed."""
    house = type(finished_house)(tmp_path_factory.mktemp("stale") / "house")
    shutil.copytree(finished_house.root, house.root, symlinks=True)
    shutil.rmtree(house.root / ".snakemake")
    settings = copy.deepcopy(TINY)
    settings["ablation"]["runs"] = 3
    house.configure(settings)
    return house


def contents(house):
    return {path: path.stat().st_mtime_ns for path in house.study.parent.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", LOOKS, ids=" ".join)
def test_looking_changes_no_result_and_waits_for_no_lock(stale_house, options):
    before = contents(stale_house)
    with (stale_house.study.parent / ".lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        stale_house.snakemake(*options)
    assert contents(stale_house) == before


def test_touching_takes_the_lock_and_renames_nothing(stale_house, tmp_path):
    house = type(stale_house)(tmp_path / "house")
    shutil.copytree(stale_house.root, house.root, symlinks=True)
    before = contents(house)
    with (house.study.parent / ".lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "is using it" in house.snakemake("--touch", succeeds=False)
    house.snakemake("--touch")
    assert contents(house).keys() - before.keys() == set()
    assert "stale" in house.plumbline("status", "--configfile", "tiny.yaml")


def test_the_table_of_trials_fits_the_terminal(finished_house):
    check_shown(finished_house)
