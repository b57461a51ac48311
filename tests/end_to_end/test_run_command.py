"""`plumbline run` does what the snakemake command that it prints does, and says how it went."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from house import TINY, House, build, kill_group

PROGRAM = [sys.executable, "-c", "from plumbline.cli import main; main()", "run", "--configfile", "tiny.yaml"]
FAILS = "test {x} != 2 || {{ echo no luck >&2; exit 4; }}; "


@pytest.fixture
def house(tmp_path) -> House:
    return build(tmp_path / "house", "sweep")


def start(house: House, *words: str, command: list[str] = PROGRAM) -> subprocess.Popen[str]:
    """Starts it in a session of its own, so without a terminal."""
    environment = house.environment() | {"PYTHONPATH": str(house.root / "workflow")}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(
        [*command, *words], cwd=house.root, env=environment, text=True, start_new_session=True, **streams
    )


def finish(house: House, *words: str, status: int = 0, command: list[str] = PROGRAM) -> str:
    process = start(house, *words, command=command)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == status, text
    return text


def test_overrides_decide_what_runs_and_the_printed_command_finds_nothing_left(house):
    words = ["sweep", "sweep.quadratic.seeds=[0]", "sweep.quadratic.grid.x=[1,2]"]
    text = finish(house, *words)
    records = [json.loads(path.read_text()) for path in (house.study / "quadratic").glob("trials/*/*.json")]
    found = {(record["parameters"]["x"], record["parameters"]["noise"], record["seed"]) for record in records}
    assert found == {(x, noise, 0) for x in (1, 2) for noise in (0.1, 0.2)}
    assert "sweep: 4/4 trials, 2/2 other steps" in text
    assert len(text.splitlines()) < 20
    printed = finish(house, *words, "--print")
    assert "Nothing to be done" in finish(house, command=["bash", "-c", printed])
    assert shlex.split(printed)[1:4] == ["--cores", "all", "sweep"]


def test_a_dry_run_lists_the_jobs_and_runs_none_and_a_misspelt_file_is_named(house):
    text = finish(house, "sweep", "sweep.quadratic.seeds=[0]", "-n")
    assert re.search(r"^total +\d+$", text, flags=re.MULTILINE), text
    assert not list(house.study.glob("**/trials"))
    text = finish(house, "results/sweep/quadratic/sumary.csv", status=1)
    said = [line for line in text.splitlines() if "there is no target results/sweep/quadratic/sumary.csv" in line]
    assert len(said) == 1, text
    assert "did you mean results/sweep/" in said[0]


def test_failed_trials_end_it_with_the_last_line_of_their_logs_and_snakemakes_status(house):
    command = f"sweep.quadratic.command={json.dumps(FAILS + TINY['sweep']['quadratic']['command'])}"
    text = finish(house, "sweep", "sweep.quadratic.seeds=[0]", command, status=1)
    failed = [line for line in text.splitlines() if line.startswith("failed ")]
    assert len(failed) == 2
    assert all("x=2/0" in line and "exit status 4: no luck" in line and "x=2/0.log)" in line for line in failed)
    assert "sweep: 4/6 trials, 0/2 other steps, 2 failed" in text


def test_a_config_that_snakemake_would_refuse_is_refused_in_one_line(house):
    text = finish(house, "sweep", "sweep.quadratic.seeds=[0,0]", status=1)
    assert text.startswith("plumbline: config: sweep.quadratic.seeds: 0 is named twice")
    assert len(text.splitlines()) == 1
    assert not (house.root / "results").exists()


def test_a_plan_that_cannot_be_made_ends_it_in_one_line(house):
    text = finish(house, "sweep", "sweep.quadratic.code=[nowhere/*.py]", status=1)
    command, mistake = text.splitlines()
    assert command.split()[1:4] == ["--cores", "all", "sweep"]
    assert mistake == "plumbline: sweep.quadratic.code[0]: nowhere/*.py matches no file"


def test_results_that_cannot_be_written_are_named_in_one_line(house):
    (house.root / "file").write_text("")
    text = finish(house, "results=file/results", status=1)
    assert text.startswith("plumbline: results: file/results cannot be created: ")
    assert len(text.splitlines()) == 1


def test_an_error_of_snakemake_itself_is_shown(house):
    text = finish(house, "results/sweep/nothing/of/the/kind.json", status=1)
    assert "there is no target results/sweep/nothing/of/the/kind.json" in text


def test_interrupted_run_ends_its_trials_and_the_same_command_goes_on(house):
    slow = f"sweep.quadratic.command={json.dumps('sleep 5; ' + TINY['sweep']['quadratic']['command'])}"
    words = ["sweep", "sweep.quadratic.seeds=[0]", slow, "--cores", "2"]
    process = start(house, *words)
    journals = house.study / "logs" / "run" / "quadratic"
    try:
        while not list(journals.glob("*/*.jsonl")):
            time.sleep(0.1)
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        text, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            kill_group(process)
    assert process.returncode == 1
    assert "Run the same command again to go on" in text
    assert not [line for line in text.splitlines() if "Traceback" in line]
    processes = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True, check=False)
    assert processes.stdout == ""
    assert "6/6 trials" in finish(house, *words)


def test_a_second_run_in_the_same_folder_is_refused_in_one_line(house):
    slow = f"sweep.quadratic.command={json.dumps('sleep 40; ' + TINY['sweep']['quadratic']['command'])}"
    process = start(house, "sweep", slow)
    try:
        while not list((house.study / "logs" / "run" / "quadratic").glob("*/*.jsonl")):
            time.sleep(0.1)
            assert process.poll() is None
        text = finish(house, "sweep", slow, status=1)
    finally:
        kill_group(process)
    assert re.fullmatch(r"plumbline: results: process \d+ is using it; wait until it ends, or stop it\n", text)


IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def test_ctrl_c_in_a_terminal_reaches_snakemake_once(house):
    slow = f"sweep.quadratic.command={json.dumps('sleep 40; ' + TINY['sweep']['quadratic']['command'])}"
    words = ["sweep", "sweep.quadratic.seeds=[0]", slow]
    environment = house.environment() | {"PYTHONPATH": str(house.root / "workflow"), "TERM": "xterm"}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-c", IN_A_TERMINAL, *PROGRAM, *words]
    process = subprocess.Popen(command, cwd=house.root, env=environment, start_new_session=True, **streams)
    try:
        while not list((house.study / "logs" / "run" / "quadratic").glob("*/*.jsonl")):
            time.sleep(0.1)
            assert process.poll() is None
        time.sleep(8)  # the view is drawn again meanwhile
        text = process.communicate(b"\x03", timeout=60)[0].decode()
    finally:
        if process.poll() is None:
            kill_group(process)
    assert process.returncode == 1
    assert "running      sweep/run/quadratic" in text
    assert "interrupted sweep/run/quadratic" in text
    assert "failed sweep/run/quadratic" not in text
    assert "Run the same command again to go on" in text
    (log,) = (house.root / "results" / "logs").glob("snakemake-*.log")
    assert log.read_text().count("Terminating processes on user request") == 1
    assert "Traceback" not in text


def test_status_watch_follows_a_run_of_snakemake_and_ends_when_all_is_done(house):
    program = [*PROGRAM[:3], "status", "--watch", "--study", "sweep", "--configfile", "tiny.yaml"]
    run = house.start()
    try:
        lines = finish(house, command=program).splitlines()
        assert run.wait(60) == 0
    finally:
        if run.poll() is None:
            kill_group(run)
    counts = [line.split(maxsplit=1)[1] for line in lines if "trials" in line]
    assert counts[0].startswith("sweep: 0/18 trials, 0/2 other steps")
    assert counts[-1] == "sweep: 18/18 trials, 2/2 other steps"
