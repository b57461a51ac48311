import os
import subprocess
import time

import psutil
import pytest

from plumbline.core.run.liveness import SILENT_SECONDS, boot_id, is_running, process_status


def journal(*events, **start):
    """Events of one attempt, all from now unless they say otherwise."""
    first = {"event": "start", "boot": boot_id(), "pid": os.getpid(), **start}
    return [{"time": time.time(), **event} for event in (first, *events)]


def test_this_process_runs_until_its_journal_says_that_it_ended_or_failed():
    assert is_running(journal({"done": 3, "total": 4}))
    assert not is_running(journal({"event": "end"}))
    assert not is_running(journal({"event": "failed"}))
    assert is_running([*journal({"event": "failed"}), *journal()])
    assert not is_running([])


def comes_to(pid, status):
    """Whether the process has this status within a few seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if psutil.Process(pid).status() == status:
            return True
        time.sleep(0.01)
    return False


def test_a_stopped_process_runs_but_a_dead_one_nobody_waited_for_does_not():
    process = subprocess.Popen(["sleep", "60"])
    events = journal(pid=process.pid)
    try:
        psutil.Process(process.pid).suspend()
        assert comes_to(process.pid, psutil.STATUS_STOPPED)
        assert process_status(events[0]) == psutil.STATUS_STOPPED
        assert is_running(events)
    finally:
        process.kill()
    assert comes_to(process.pid, psutil.STATUS_ZOMBIE)
    assert not is_running(events)
    process.wait()
    assert process_status(events[0]) is None


def test_a_later_process_with_the_same_number_is_another_one():
    assert not is_running(journal(time=1.0))


@pytest.mark.parametrize(("silence", "runs"), [(0.5 * SILENT_SECONDS, True), (1.5 * SILENT_SECONDS, False)])
def test_a_process_of_another_boot_runs_while_its_last_event_is_fresh(silence, runs):
    events = journal({"done": 1, "time": time.time() - silence}, boot="another", pid=1, time=5.0)
    assert is_running(events) == runs
