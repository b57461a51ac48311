"""A user's mistake is one clear line, before any job starts, and nothing is lost."""

import re
import subprocess
import sys
import time

import pytest

from house import build
from plumbline.core.errors import UserError
from plumbline.core.run import lock


def refuse(house, *arguments):
    """What Snakemake prints of a config that it refuses."""
    text = house.snakemake(*arguments, succeeds=False)
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ablation": {"training": {"hiden": 3}}}, "ablation.training.hiden: no such key; did you mean hidden?"),
        ({"ablation": {"representations": {"factor": ["nowhere.at_all:f"]}}}, "module nowhere.at_all: not found"),
        ({"results": "out/{date}"}, "results: String should match pattern"),
    ],
    ids=["of the config", "of the plan", "of the folder"],
)
def test_mistakes_in_the_config_are_named_before_any_job_starts(empty_house, settings, message):
    """One of each kind: tests/test_config.py has the others, which Snakemake passes on in the same way."""
    empty_house.configure(settings)
    assert message in refuse(empty_house, "--dry-run")
    assert not empty_house.study.exists()


def test_a_function_that_does_not_exist_is_named_by_a_run_and_by_status(empty_house):
    sweep = {
        "run": "examples.resumable.training:rnu",
        "grid": {"rate": [0.1]},
        "metric": {"name": "loss", "goal": "min"},
    }
    empty_house.configure({"sweep": {"digits_mlp": None, "s": sweep}})
    said = "sweep.s.run: examples.resumable.training has no rnu; did you mean run?"
    assert said in refuse(empty_house, "--dry-run")
    with pytest.raises(AssertionError, match=f"plumbline: {re.escape(said)}"):
        empty_house.plumbline("status", "--configfile", "tiny.yaml")


def test_a_key_that_stands_twice_in_a_configfile_is_refused(empty_house):
    (empty_house.root / "tiny.yaml").write_text("ablation:\n  runs: 3\n  runs: 5\n")
    assert "tiny.yaml:3: 'runs' stands here again, after line 2; keep one of them" in refuse(empty_house, "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("results/ablation/sumary.csv",), "; did you mean results/ablation/summary.csv? Targets are all, ablation, "),
        (("--cores", "0"), "--cores 0: no job can run without a core"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(empty_house, arguments, message):
    *_, said = refuse(empty_house, *arguments).strip().splitlines()
    assert message in said
    assert not empty_house.study.exists()


def test_misspelt_study_is_named_with_the_one_that_was_meant(tmp_path):
    assert "no target abblation; did you mean ablation?" in refuse(build(tmp_path / "house", "abblation"))


def test_more_ranks_than_cores_are_refused_before_any_job_starts(empty_house):
    settings = {"worlds": [1, 1024], "training": {"batch": 1024}, "comparison": {"batch": None}}
    empty_house.configure({"device": "cpu", "data_parallel": settings})
    target, message = "results/data_parallel/results.json", "data_parallel.worlds: 1024 ranks, but this host has"
    assert message in empty_house.snakemake(target, succeeds=False)
    assert not (empty_house.root / "results" / "data_parallel").exists()
    said = empty_house.snakemake("--dry-run", target)
    assert said.count(f"a run on this machine would be refused: {message}") == 1
    empty_house.configure({"device": "cpu", "data_parallel": settings | {"oversubscribe": True}})
    assert message not in empty_house.snakemake("--dry-run", target)


def test_grid_beyond_the_context_of_the_trained_model_is_named_where_it_is_asked_for(empty_house):
    empty_house.configure({"lr_sweep": {"model": {"context": 16}}})
    text = empty_house.snakemake("--dry-run", "results/throughput/results.json", succeeds=False)
    assert (
        "throughput.grid.0: prompt + generated is 36 tokens, more than the context of 16 tokens of lr_sweep.model"
        in text
    )
    assert "lr_sweep_train" in empty_house.snakemake("--dry-run", "results/lr_sweep/results.json")


def test_results_folder_that_cannot_be_made_is_named(empty_house):
    (empty_house.root / "file").write_text("")
    text = refuse(empty_house, "--config", "results=file/results")
    assert "file/results cannot be created" in text


def test_results_folder_without_permission_is_named(monkeypatch, tmp_path):
    # Root may write anywhere, so that the kernel's answer for another user is put in its place.
    monkeypatch.setattr(lock.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"results cannot be written: no permission to write to .*--config results="):
        lock.check_writable(tmp_path / "results")


def test_second_run_at_the_same_time_is_refused(house):
    holder = "from pathlib import Path; from plumbline.core.run.lock import hold; hold(Path('results')); input()"
    environment = house.environment() | {"PYTHONPATH": str(house.root / "workflow")}
    with subprocess.Popen([sys.executable, "-c", holder], cwd=house.root, env=environment, stdin=-1) as process:
        while (house.root / "results" / ".lock").read_text() != str(process.pid):
            time.sleep(0.05)
        assert f"process {process.pid} is using it" in refuse(house)
        process.communicate(b"\n")


def test_missing_configfile_is_named_by_status(empty_house):
    (empty_house.root / "config.yaml").unlink()
    with pytest.raises(AssertionError, match=r"plumbline: config.yaml: does not exist"):
        empty_house.plumbline("status")


@pytest.mark.parametrize("given", [[], ["--configfile", "tiny.yaml"]])
def test_command_of_the_rule_report_can_be_read_with_and_without_options(empty_house, given):
    asked = [sys.executable, "-m", "snakemake", "-np", "results/report.html", *given]
    done = subprocess.run(
        asked, cwd=empty_house.root, env=empty_house.environment(), capture_output=True, text=True, check=True
    )
    (command,) = [line for line in (done.stdout + done.stderr).splitlines() if "core.present.report.write" in line]
    shell = command.removeprefix("Shell command: ").partition(" 2>> ")[0].strip()
    environment = empty_house.environment() | {"PYTHONPATH": str(empty_house.root / "workflow")}
    ran = subprocess.run(
        ["sh", "-c", shell.replace("python ", f"{sys.executable} ", 1)],
        cwd=empty_house.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "nothing to report" in ran.stderr


def test_report_before_a_run_says_to_run_first(empty_house):
    with pytest.raises(AssertionError, match=r"^plumbline: nothing to report, .* yet: run make run first\n"):
        empty_house.plumbline("report")
