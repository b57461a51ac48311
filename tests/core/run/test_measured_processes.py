"""A process that goes first on a busy machine has a session of its own, and still ends with the group."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from plumbline.core.run.processes import ChildFault, TimeUpError, in_child


def start_and_hang(note):
    def work():
        below = subprocess.Popen(["sleep", "60"])
        note.write_text(f"{os.getpid()} {below.pid}")
        time.sleep(60)

    return work


def wait_until_gone(*pids):
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_leads_a_session_whose_priority_is_its_own():
    session, pid, niceness = in_child(
        lambda: [os.getsid(0), os.getpid(), os.getpriority(os.PRIO_PROCESS, 0)], first=True
    )
    assert session == pid
    assert niceness <= os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not share cores by session")
def test_the_session_has_the_priority_of_its_process():
    def read():
        return [Path("/proc/self/autogroup").read_text().split()[-1], os.getpriority(os.PRIO_PROCESS, 0)]

    time.sleep(0.2)  # a process without rights may set it once in a tenth of a second
    of_session, of_process = in_child(read, first=True)
    assert int(of_session) == of_process


def test_past_its_deadline_it_ends_with_what_it_started(tmp_path):
    with pytest.raises(TimeUpError):
        in_child(start_and_hang(tmp_path / "pids"), seconds=2, first=True)
    wait_until_gone(*map(int, (tmp_path / "pids").read_text().split()))


def test_what_it_leaves_running_ends_with_it(tmp_path):
    def leave():
        return subprocess.Popen(["sleep", "60"]).pid

    wait_until_gone(in_child(leave, first=True))


def test_a_killed_one_is_a_fault():
    with pytest.raises(ChildFault, match="SIGKILL"):
        in_child(lambda: os.kill(os.getpid(), signal.SIGKILL), first=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_what_it_started_when_the_parent_is_ended(tmp_path, number):
    code = (
        "import os, subprocess, time; from pathlib import Path; from plumbline.core.run.processes import in_child\n"
        "def work():\n"
        "    below = subprocess.Popen(['sleep', '60'])\n"
        f"    Path({str(tmp_path / 'new')!r}).write_text(f'{{os.getpid()}} {{below.pid}}')\n"
        f"    os.rename({str(tmp_path / 'new')!r}, {str(tmp_path / 'pids')!r})\n"
        "    time.sleep(60)\n"
        "in_child(work, first=True)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 20
    while not (tmp_path / "pids").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.send_signal(number)
    parent.wait()
    wait_until_gone(*map(int, (tmp_path / "pids").read_text().split()))
