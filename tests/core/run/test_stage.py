import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

MODULE = '''
"""Stage `double`: twice a number."""
import sys
import time
from pathlib import Path
from plumbline.core.errors import UserError
from plumbline.core.files import write_text
from plumbline.core.plan.target import Spec
from plumbline.core.run.progress import track
from plumbline.core.run.stage import stage

class DoubleSpec(Spec):
    factor: int

@stage
def double(spec: DoubleSpec, output: Path, inputs: list[Path] | None = None, device: str = "auto") -> None:
    """Twice a number."""
    if spec.factor == 13:
        raise UserError("factor: 13 is unlucky; choose another")
    if spec.factor == 7:
        time.sleep(1)
    if spec.factor == 0:
        raise ZeroDivisionError("a bug")
    total = sum(int(path.read_text()) for path in track(inputs or [], 2, "files"))
    write_text(output, f"{spec.factor * total} {device}")

if __name__ == "__main__":
    double.main()
'''


@pytest.fixture
def run(tmp_path):
    (tmp_path / "double.py").write_text(MODULE)
    for name, number in (("a", 1), ("b", 2)):
        (tmp_path / name).write_text(str(number))

    def run(spec, *more, stdin=None):
        command = [sys.executable, "-m", "double", "--spec", spec, "--inputs", "a", "b", "--output", "out", *more]
        environment = {**os.environ, "PYTHONPATH": str(Path("workflow").resolve())}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, input=stdin, capture_output=True, text=True, check=False
        )

    return run


def spec(**values):
    return json.dumps({"code": "", "inputs": "", "factor": 2, **values})


def test_a_spec_that_is_longer_than_an_argument_can_be_comes_through_a_pipe(run, tmp_path):
    assert run("-", stdin=spec(code="x" * 1_000_000)).returncode == 0
    assert (tmp_path / "out").read_text() == "6 auto"
    assert "--spec: is not valid JSON" in run("-", stdin="{").stderr


def test_options_are_the_parameters(run, tmp_path):
    assert run(spec(), "--device", "cpu").returncode == 0
    assert (tmp_path / "out").read_text() == "6 cpu"


def test_a_second_process_on_a_target_waits_for_the_first(run, tmp_path):
    """As when a run was killed and its jobs were not."""
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: run(spec(factor=7), "--log", "double.log"), range(2)))
    assert [process.returncode for process in done] == [0, 0]
    events = [json.loads(line) for line in (tmp_path / "double.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if "event" in event] == ["start", "end", "start", "end"]
    assert sum("waiting for it" in process.stderr for process in done) == 1


def test_journal_holds_spec_progress_and_end(run, tmp_path):
    run(spec(), "--log", "logs/double.log")
    events = [json.loads(line) for line in (tmp_path / "logs/double.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "start"
    assert events[0]["spec"]["factor"] == 2
    assert events[-2]["done"] == 2
    assert events[-1]["event"] == "end"


def test_mistake_is_one_line_and_in_the_journal(run, tmp_path):
    answer = run(spec(factor=13), "--log", "double.log")
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert answer.stderr.splitlines()[-1].endswith("ERROR factor: 13 is unlucky; choose another")
    assert json.loads((tmp_path / "double.jsonl").read_text().splitlines()[-1])["event"] == "failed"
    assert not (tmp_path / "out").exists()


def test_bug_keeps_its_traceback(run, tmp_path):
    answer = run(spec(factor=0), "--log", "double.log")
    assert answer.returncode != 0
    assert "ZeroDivisionError: a bug" in answer.stderr
    assert "a bug" in (tmp_path / "double.jsonl").read_text().splitlines()[-1]


def test_unknown_key_in_a_spec_is_refused(run):
    answer = run(spec(facter=1))
    assert answer.returncode == 1
    assert "--spec: facter: no such key; did you mean factor?" in answer.stderr


def test_log_lines_have_iso_timestamps_and_levels(run):
    first = run(spec()).stderr.splitlines()[0]
    assert first.endswith("Z INFO double started")
    assert first[10] == "T"
