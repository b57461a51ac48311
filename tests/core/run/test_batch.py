"""Several targets of a stage in one job: each as if it were alone, and what one of them did is never done twice."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plumbline.core.files import write_json
from plumbline.core.plan.batch import is_there, keep, keeping
from plumbline.core.plan.target import Target

MODULE = '''
"""Stage `draw`: a record of a random number, which a global generator draws."""
import random
import time
from pathlib import Path
from typing import Literal
import torch
from plumbline.core.plan.target import Spec
from plumbline.core.run.record import Record, recording
from plumbline.core.run.stage import stage

class DrawSpec(Spec):
    number: int

class DrawRecord(Record):
    study: Literal["numbers"] = "numbers"
    stage: Literal["draw"] = "draw"
    drawn: float
    read: str
    sign: int

def import_ahead() -> None:
    """What takes a while."""
    with Path("imported").open("a") as stream:
        stream.write("once ")

@stage
def draw(spec: DrawSpec, source: Path, output: Path, sign: int = 1) -> None:
    """Draws."""
    with recording(output, DrawRecord, trial=str(spec.number), spec=spec) as findings:
        Path(f"started-{spec.number}").touch()
        if Path(f"broken-{spec.number}").exists():
            raise ValueError(f"{spec.number} is broken")
        while Path(f"stuck-{spec.number}").exists():
            time.sleep(0.02)
        findings |= {"drawn": float(torch.rand(())), "read": source.read_text(), "sign": sign}

if __name__ == "__main__":
    draw.main()
'''
NUMBERS = range(3)


def job(number):
    """The target that records this number, as a batch names it."""
    return {
        "spec": {"code": "", "inputs": "", "number": number},
        "inputs": {"source": ["source.txt"], "not_taken": ["x"]},
        "outputs": [f"out/{number}.json"],
        "log": f"log/{number}.log",
    }


class Folder:
    def __init__(self, root):
        self.root = root
        (root / "draw.py").write_text(MODULE)
        (root / "source.txt").write_text("read")

    def start(self, jobs):
        """A batch that works on the jobs, the leader of a process group."""
        command = [sys.executable, "-m", "plumbline.core.run.batch", "draw", "--sign", "-1"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path("workflow").resolve()), str(self.root)])}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=self.root, env=environment, stdin=pipe, stderr=pipe, text=True, start_new_session=True
        )
        process.stdin.write(json.dumps(jobs))
        process.stdin.close()
        return process

    def run(self, jobs, status=0):
        """Runs a batch; returns what it printed."""
        process = self.start(jobs)
        said = process.stderr.read()
        assert process.wait() == status, said
        return said

    def record(self, number):
        return json.loads((self.root / f"out/{number}.json").read_text())

    def written(self):
        """Number -> when its record was written."""
        return {number: (self.root / f"out/{number}.json").stat().st_mtime_ns for number in NUMBERS}

    def events(self, number):
        lines = (self.root / f"log/{number}.jsonl").read_text().splitlines()
        return [event["event"] for event in map(json.loads, lines) if "event" in event]


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path)


def test_each_target_has_the_record_log_and_journal_of_a_process_of_its_own(folder):
    folder.run([job(number) for number in NUMBERS])
    records = [folder.record(number) for number in NUMBERS]
    assert [(record["spec"]["number"], record["read"], record["sign"]) for record in records] == [
        (number, "read", -1) for number in NUMBERS
    ]
    assert len({record["drawn"] for record in records}) == 1, "one of them found the generator as another left it"
    for number in NUMBERS:
        assert folder.events(number) == ["start", "end"]
        assert "draw finished" in (folder.root / f"log/{number}.log").read_text()
    assert (folder.root / "imported").read_text() == "once "
    assert not list(folder.root.rglob(".*.kept"))


def test_what_is_there_from_the_same_spec_is_left_alone_and_nothing_else(folder):
    jobs = [job(number) for number in NUMBERS]
    folder.run(jobs)
    before = folder.written()
    (folder.root / "out/2.json").unlink()
    jobs[1]["spec"]["code"] = "another"
    folder.run(jobs)
    after = folder.written()
    assert [number for number in NUMBERS if before[number] != after[number]] == [1, 2]
    assert folder.record(1)["spec"]["code"] == "another"


def test_one_that_fails_stops_no_other_and_what_was_made_outlives_the_deletion_of_all_outputs(folder):
    (folder.root / "broken-1").touch()
    said = folder.run([job(number) for number in NUMBERS], status=1)
    assert "ERROR 1 of 3 failed: log/1.log: ValueError: 1 is broken\n" in said
    assert "Traceback" in (folder.root / "log/1.log").read_text()
    assert folder.events(1) == ["start", "failed"]
    made = [folder.record(number) for number in (0, 2)]
    for number in (0, 2):
        (folder.root / f"out/{number}.json").unlink()  # as Snakemake does
    (folder.root / "broken-1").unlink()
    folder.run([job(number) for number in NUMBERS])
    assert [folder.record(number) for number in (0, 2)] == made
    assert [folder.events(number).count("start") for number in NUMBERS] == [1, 2, 1]
    assert not list(folder.root.rglob(".*.kept"))


def test_a_kept_record_of_another_spec_is_not_taken(folder):
    (folder.root / "broken-1").touch()
    folder.run([job(0), job(1)], status=1)
    (folder.root / "out/0.json").unlink()
    changed = job(0)
    changed["spec"]["code"] = "another"
    folder.run([changed])
    assert folder.record(0)["spec"]["code"] == "another"


def test_a_record_outlives_any_number_of_runs_that_fail_and_no_link_stays(tmp_path):
    target = Target("ablation", "train", "0", "0.json", {"number": 0})
    record = target.file(tmp_path)
    write_json(record, {"schema": 1, "spec": json.loads(target.spec)})
    for _ in range(3):
        with keeping([target], tmp_path, lambda target: False):
            record.unlink()
            assert is_there([record], target.spec)
            record.unlink()
        assert [path.name for path in record.parent.iterdir()] == ["0.json"]
    with keeping([target], tmp_path, lambda target: True):
        record.unlink()
        assert not is_there([record], target.spec)


def test_where_links_cannot_be_made_copies_keep_records(tmp_path, monkeypatch):
    def refuse(link, target):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(link))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    record = tmp_path / "0.json"
    write_json(record, {"schema": 1, "spec": {"number": 0}})
    before = record.read_bytes(), record.stat().st_mtime_ns
    keep([record])
    record.unlink()
    assert is_there([record], '{"number":0}')
    assert (record.read_bytes(), record.stat().st_mtime_ns) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_batch_that_is_killed_takes_its_process_with_it_and_goes_on_where_it_was(folder, number):
    (folder.root / "stuck-1").touch()
    process = folder.start([job(number) for number in NUMBERS])
    while not (folder.root / "started-1").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    worker = json.loads((folder.root / "log/1.jsonl").read_text().splitlines()[0])["pid"]
    process.send_signal(number)
    assert process.wait() == -number
    while Path(f"/proc/{worker}/stat").exists() and " Z " not in Path(f"/proc/{worker}/stat").read_text():
        time.sleep(0.02)
    made = folder.record(0)
    (folder.root / "stuck-1").unlink()
    folder.run([job(number) for number in NUMBERS])
    assert folder.record(0) == made
    assert [folder.events(number).count("start") for number in NUMBERS] == [1, 2, 1]


def test_a_target_that_runs_out_of_luck_with_the_kernel_is_a_failure_of_its_own(folder):
    (folder.root / "stuck-0").touch()
    process = folder.start([job(0), job(1)])
    while not (folder.root / "started-0").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    worker = json.loads((folder.root / "log/0.jsonl").read_text().splitlines()[0])["pid"]
    os.kill(worker, signal.SIGKILL)
    assert "1 of 2 failed: log/0.log: ended without an error message" in process.stderr.read()
    assert process.wait() == 1
    assert folder.record(1)["outcome"] == "ok"
