"""What the live view shows in a terminal and in a file."""

import io
import json
import os
import time

import pytest
from rich.console import Console

from plumbline.commands.live import LiveView
from plumbline.core.plan.live_status import StatusReader
from plumbline.core.plan.target import Target
from plumbline.core.run.liveness import boot_id

TARGETS = [Target("ablation", "train", name, f"trials/{name}.json", {}, is_trial=True) for name in ("a", "b", "c", "d")]
OTHER = Target("lr_sweep", "train", "x", "trials/x.json", {}, is_trial=True)


@pytest.fixture
def results(tmp_path):
    """A folder in which `a` is done, `b` runs, `c` failed and `d` was not begun."""
    record = {"schema": 1, "outcome": "ok", "seconds": 30.0, "spec": json.loads(TARGETS[0].spec)}
    (tmp_path / "ablation/trials").mkdir(parents=True)
    (tmp_path / "ablation/trials/a.json").write_text(json.dumps(record))
    start = {"event": "start", "pid": os.getpid(), "boot": boot_id(), "time": time.time()}
    progress = {"done": 3, "total": 4, "eta_seconds": 7.0, "time": time.time()}
    fault = {"event": "failed", "message": "no luck", "time": time.time()}
    (tmp_path / "ablation/logs/train").mkdir(parents=True)
    for name, events in (("b", [start, progress]), ("c", [start, fault])):
        path = tmp_path / "ablation/logs/train" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
    (tmp_path / "ablation/logs/train/c.log").write_text("2026-11-27T06:00:00Z ERROR no luck\n")
    return tmp_path


def shown(results, *, terminal, looks=1, studies=("ablation",), targets=(*TARGETS, OTHER), width=100) -> list[str]:
    """What is left on the screen, or in the file, after so many looks and the last one."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width, color_system=None, soft_wrap=True)
    left = iter(range(looks, 0, -1))
    view = LiveView(StatusReader(lambda: list(targets), results), results, studies)
    view.show_until(lambda seconds: next(left) == 1, console)
    text = stream.getvalue()
    return (text.rpartition("\x1b[2K")[2] if terminal else text).splitlines()


def seconds(line: str) -> int:
    """The time left at the end of a line."""
    return int(line.rstrip().removesuffix(" s").split()[-1])


def test_a_terminal_shows_counts_running_targets_and_failures_with_their_last_line(results):
    head, headings, row, running, failed, why, *_ = shown(results, terminal=True)
    assert 30 <= seconds(head) <= 37  # at most 7 s are left of b; d takes as long as a did
    assert headings.split()[:2] == ["study", "trials"]
    words = [word for word in row.split() if not set(word) & set("━╸")]
    assert words[:5] == ["ablation", "1/4", "1", "1", "0/0"]
    assert 30 <= seconds(row) <= 37
    assert running.split() == ["running", "ablation/train/b:", "75%,", "ETA", "7", "s"]
    assert failed.split() == ["failed", "ablation/train/c"]
    assert why.strip() == "no luck"


def test_a_terminal_of_80_columns_counts_what_was_interrupted_and_says_how_many_are_not_listed(results):
    killed = [Target("ablation", "train", f"k{n}", f"trials/k{n}.json", {}, is_trial=True) for n in range(12)]
    start = {"event": "start", "pid": 2**22 + 1, "boot": boot_id(), "time": time.time()}
    for one in killed:
        (results / "ablation/logs/train" / f"{one.name}.jsonl").write_text(json.dumps(start) + "\n")
    lines = shown(results, terminal=True, targets=[*TARGETS, *killed], width=80)
    counts = [word for word in lines[2].split() if word.isdigit()][:3]
    table = dict(zip(lines[1].split()[2:5], counts, strict=True))
    assert table == {"running": "1", "failed": "1", "interrupted": "12"}
    assert sum(line.startswith("interrupted ") for line in lines) == 10
    assert "and 3 more" in [line.strip() for line in lines]
    assert "ETA" in lines[1]


def test_a_study_that_was_not_asked_for_is_shown_while_it_runs(results):
    assert not [line for line in shown(results, terminal=False) if "lr_sweep" in line]
    (results / "lr_sweep/logs/train").mkdir(parents=True)
    start = {"event": "start", "pid": os.getpid(), "boot": boot_id(), "time": time.time()}
    (results / "lr_sweep/logs/train/x.jsonl").write_text(json.dumps(start) + "\n")
    assert [line for line in shown(results, terminal=False) if "lr_sweep: 0/1 trials" in line]


def test_a_file_gets_a_line_only_when_something_changed(results):
    lines = [line.split(maxsplit=1)[1] for line in shown(results, terminal=False, looks=5)]
    assert [line.partition(", ETA")[0] for line in lines] == [
        "ablation: 1/4 trials, 0/0 other steps, 1 running, 1 failed",
        "failed ablation/train/c: 2026-11-27T06:00:00Z ERROR no luck",
    ]


def test_a_narrow_terminal_cuts_lines_and_keeps_the_height(results):
    (results / "ablation/logs/train/c.log").write_text("word " * 200)
    assert max(map(len, shown(results, terminal=True))) <= 100
