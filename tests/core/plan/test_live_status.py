"""Reading again says what reading afresh says, and opens only what changed."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from plumbline.core.plan import live_status
from plumbline.core.plan.live_status import LastAttempt, StatusReader
from plumbline.core.plan.status import target_statuses
from plumbline.core.plan.target import Target
from plumbline.core.run.liveness import boot_id

START = {"event": "start", "pid": os.getpid(), "boot": boot_id()}
GONE = START | {"pid": 2**22 + 1}


def trial(name: str) -> Target:
    return Target("ablation", "train", name, f"trials/{name}.json", {}, is_trial=True)


def append(path: Path, event: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(json.dumps({"time": time.time(), **event}) + "\n")


@pytest.mark.parametrize("seed", range(5))
def test_reading_again_and_again_says_what_reading_afresh_says(tmp_path, seed):
    draw, targets = random.Random(seed), [trial(name) for name in "abcd"]
    events = [START, GONE, {"done": 1, "total": 4, "eta_seconds": 9.0}, {"event": "failed", "message": "no"}]
    events += [{"event": "end", "seconds": 1.0}, {"spans": {}}]
    reader = StatusReader(lambda: targets, tmp_path)
    for _ in range(60):
        one = draw.choice(targets)
        output = tmp_path / "ablation" / one.output
        if draw.random() < 0.2:
            output.parent.mkdir(parents=True, exist_ok=True)
            spec = json.loads(one.spec) if draw.random() < 0.5 else {}
            record = {"schema": 1, "outcome": "ok", "seconds": draw.random(), "spec": spec}
            output.write_text(json.dumps(record, indent=draw.choice([None, 1])))
        elif draw.random() < 0.1:
            output.unlink(missing_ok=True)
        else:
            append(tmp_path / "ablation" / one.journal, draw.choice(events))
        assert reader.read() == target_statuses(targets, tmp_path)


def test_a_target_that_did_not_change_is_not_opened_again(tmp_path, monkeypatch):
    targets = [trial(name) for name in "abc"]
    append(tmp_path / "ablation" / targets[0].journal, {"event": "failed", "message": "no"})
    reader = StatusReader(lambda: targets, tmp_path)
    before = reader.read()
    monkeypatch.setattr(live_status, "read_journal", lambda path: pytest.fail(f"{path} was opened"))
    assert reader.read() == before


def test_a_process_that_was_killed_no_longer_runs_although_its_journal_is_the_same(tmp_path, monkeypatch):
    target = trial("a")
    append(tmp_path / "ablation" / target.journal, START)
    reader = StatusReader(lambda: [target], tmp_path)
    assert reader.read()[0].state == "running"
    monkeypatch.setattr("plumbline.core.run.liveness.process_status", lambda start: None)
    assert reader.read()[0].broke_off


def test_lines_of_a_growing_journal_are_read_once_and_a_line_in_the_making_is_left_for_later(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"event": "start", "time": 1}\n{"done": 1, "total": 9, "time": 2}\n{"done": 2, ')
    attempt = LastAttempt(path)
    assert [event["time"] for event in attempt.events()] == [1, 2]
    with path.open("a") as stream:
        stream.write('"total": 9, "time": 3}\n{"spans": {}, "time": 4}\n')
    assert [event["time"] for event in attempt.events()] == [1, 3, 4]
    with path.open("a") as stream:
        stream.write('{"event": "start", "time": 5}\n')
    assert [event["time"] for event in attempt.events()] == [5]


def test_targets_that_a_decision_adds_are_read_once_it_is_taken(tmp_path):
    decision = Target("ablation", "split", "0", "rounds/0.json", {}, adds_targets=True)
    output = tmp_path / "ablation" / decision.output
    reader = StatusReader(lambda: [trial("a"), decision, *([trial("b")] if output.exists() else [])], tmp_path)
    assert [status.target.name for status in reader.read()] == ["a", "0"]
    append(tmp_path / "ablation" / decision.journal, START | {"spec": json.loads(decision.spec)})
    output.parent.mkdir()
    output.write_text("{}")
    append(tmp_path / "ablation" / decision.journal, {"event": "end", "seconds": 1.0})
    assert [(status.target.name, status.state) for status in reader.read()] == [
        ("a", "missing"),
        ("0", "done"),
        ("b", "missing"),
    ]
