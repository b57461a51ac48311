"""The numbers of the live view."""

import pytest

from plumbline.commands.progress import duration, ending, has_failed_since, last_line, remaining_of_all, study_progress
from plumbline.core.plan.status import TargetStatus
from plumbline.core.plan.target import Target


def status(name, state, stage="train", study="ablation", is_trial=True, optional=False, **more):
    target = Target(study, stage, name, f"{stage}/{name}.json", {}, is_trial=is_trial, optional=optional)
    return TargetStatus(target=target, state=state, **more)


NEVER = has_failed_since(float("inf"))


def test_each_study_counts_its_trials_and_other_steps_and_leaves_out_what_is_never_asked_for():
    found = [
        status("a", "done", seconds=2.0),
        status("b", "running"),
        status("c", "failed", why=("no",), changed=50.0),
        status("d", "missing", optional=True),
        status("", "missing", stage="figures", is_trial=False),
        status("a", "stale", study="lr_sweep"),
    ]
    ablation, lr_sweep = study_progress(found, has_failed_since(40.0), now=60.0)
    assert (ablation.done, ablation.trials, ablation.running, ablation.failed) == (1, 3, 1, 1)
    assert (ablation.steps_done, ablation.steps) == (0, 1)
    assert (lr_sweep.study, lr_sweep.done, lr_sweep.trials) == ("lr_sweep", 0, 1)


def test_what_failed_before_the_run_waits_and_what_was_killed_in_it_has_failed():
    has_failed = has_failed_since(100.0)
    assert not has_failed(status("a", "failed", why=("no",), changed=99.0))
    assert has_failed(status("a", "failed", why=("no",), changed=101.0))
    assert has_failed(status("a", "missing", why=("interrupted at 3%",), changed=101.0))
    assert not has_failed(status("a", "missing"))


def test_what_was_interrupted_is_counted_as_such_and_not_as_failed():
    stopped = status("a", "missing", why=("interrupted at 3%",), changed=101.0)
    (row,) = study_progress(
        [stopped, status("b", "failed", why=("no",), changed=101.0)], has_failed_since(100.0), 102.0
    )
    assert (row.failed, row.interrupted) == (1, 1)
    assert str(row).startswith("ablation: 0/2 trials, 0/0 other steps, 1 failed, 1 interrupted")


def test_what_was_killed_is_called_interrupted_and_not_failed():
    assert ending(status("a", "failed", why=("no",))) == "failed"
    assert ending(status("a", "missing", why=("interrupted at 3%",))) == "interrupted"


def test_time_left_is_the_mean_of_those_done_shared_among_those_that_run():
    done = [status("a", "done", seconds=10.0), status("b", "done", seconds=30.0)]
    left = [status(name, "missing") for name in "cdef"]
    running = [status("g", "running", eta_seconds=15.0, changed=95.0), status("h", "running", fraction=0.25)]
    eta = remaining_of_all([*done, *left, *running], NEVER, now=100.0)
    assert eta.seconds == pytest.approx((4 * 20 + (15 - 5) + 20 * 0.75) / 2)
    assert eta.is_complete


def test_time_left_is_never_less_than_that_of_the_slowest_that_runs():
    running = [status("g", "running", eta_seconds=80.0, changed=100.0), status("h", "running", eta_seconds=2.0)]
    assert remaining_of_all(running, NEVER, now=100.0).seconds == 80.0


def test_stage_without_any_time_makes_the_time_left_a_least_one():
    found = [status("a", "done", seconds=10.0), status("b", "missing"), status("", "missing", stage="other")]
    eta = remaining_of_all(found, NEVER, now=0.0)
    assert (str(eta), eta.is_complete) == ("> 10 s", False)
    assert str(remaining_of_all(found[2:], NEVER, now=0.0)) == "?"


def test_failed_targets_take_no_more_time():
    found = [status("a", "done", seconds=10.0), status("b", "failed", why=("no",), changed=5.0)]
    assert remaining_of_all(found, has_failed_since(0.0), now=9.0).seconds == 0.0


def test_last_line_of_a_log_skips_empty_ones_and_survives_any_bytes(tmp_path):
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 100_000 + b"\nERROR no luck \xff\n\n  \n")
    assert last_line(log) == "ERROR no luck �"
    assert last_line(tmp_path / "none.log") == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7830, "2 h 10 min")]
)
def test_durations_read_as_one_says_them(seconds, text):
    assert duration(seconds) == text
