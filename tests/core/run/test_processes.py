import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from plumbline.core.errors import UserError
from plumbline.core.run import progress
from plumbline.core.run.processes import ChildFault, TimeUpError, in_child, limit_address_space
from plumbline.core.run.record import Outcome, OutcomeError

MEBIBYTE = 1 << 20


def throwing(error):
    def throw():
        raise error

    return throw


def gone(pid):
    """Whether a process has ended, within a few seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_result_comes_back_whole_from_another_process():
    large = "ä\n" * 300_000  # far more than a pipe holds at once
    pid, text, nothing = in_child(lambda: (os.getpid(), large, None))
    assert pid != os.getpid()
    assert text == large
    assert nothing is None
    assert gone(pid)


def test_children_of_a_child_of_the_child_end_when_the_time_is_up(tmp_path):
    def sleeping():
        process = subprocess.Popen(["sleep", "60"])
        (tmp_path / "pid").write_text(str(process.pid))
        process.wait()

    with pytest.raises(TimeUpError):
        in_child(lambda: in_child(sleeping), seconds=2)
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_the_child_changes_stays_there():
    changed = []
    assert in_child(lambda: changed.append(1) or len(changed)) == 1
    assert changed == []


def test_mistakes_findings_and_lack_of_memory_come_back_as_themselves():
    with pytest.raises(UserError, match=r"^throughput.x: wrong$"):
        in_child(throwing(UserError("throughput.x: wrong")))
    with pytest.raises(OutcomeError, match=r"^row 3$") as found:
        in_child(throwing(OutcomeError(Outcome.INVALID_OUTPUT, "row 3")))
    assert found.value.outcome is Outcome.INVALID_OUTPUT
    with pytest.raises(MemoryError, match=r"^too much$"):
        in_child(throwing(MemoryError("too much")))


def test_any_other_error_is_a_fault_with_its_traceback_in_the_log(capfd):
    handler = logging.StreamHandler(os.fdopen(os.dup(2), "w"))
    logging.getLogger("plumbline").addHandler(handler)
    with pytest.raises(ChildFault, match=r"^ZeroDivisionError: a bug$"):
        in_child(throwing(ZeroDivisionError("a bug")))
    with pytest.raises(ChildFault, match=r"^TypeError: .*JSON"):
        in_child(lambda: {1, 2})
    with pytest.raises(ChildFault, match=r"^SystemExit: 3$"):
        in_child(lambda: sys.exit(3))
    logging.getLogger("plumbline").removeHandler(handler)
    log = capfd.readouterr().err
    assert "Traceback" in log
    assert "in throw" in log


def test_child_that_takes_too_long_is_ended_with_all_it_started(tmp_path):
    def slow():
        inner = subprocess.Popen(["sleep", "60"])
        (tmp_path / "pids").write_text(f"{os.getpid()} {inner.pid}")
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(TimeUpError, match=r"longer than 0\.7 s"):
        in_child(slow, seconds=0.7)
    assert time.monotonic() - began < 10
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_result_is_not_held_up_by_a_process_that_outlives_the_child():
    def leaves_one():
        if os.fork() == 0:  # holds the pipe open
            time.sleep(60)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    with pytest.raises(ChildFault, match="SIGTERM"):
        in_child(leaves_one)
    assert time.monotonic() - began < 10


def test_child_ended_by_a_signal_is_a_fault_that_names_it():
    with pytest.raises(ChildFault, match="SIGSEGV"):
        in_child(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(ChildFault, match="SIGKILL"):  # and nothing says that memory was short
        in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ChildFault, match="exit status 7"):
        in_child(lambda: os._exit(7))


def test_address_space_limit_ends_in_a_memory_error_and_only_in_the_child():
    def greedy():
        limit_address_space(psutil.Process().memory_info().vms + 100 * MEBIBYTE)
        in_reach = np.ones(50 * MEBIBYTE, np.uint8)
        return len(in_reach) + len(np.ones(200 * MEBIBYTE, np.uint8))

    with pytest.raises(MemoryError, match=r"Unable to allocate 200\. MiB"):
        in_child(greedy)
    assert len(np.ones(200 * MEBIBYTE, np.uint8))


def test_log_journal_and_output_of_the_child_go_on(tmp_path, capfd):
    progress.append_to(tmp_path / "child.jsonl")
    print("before", flush=False)  # must not be written twice

    def noting():
        progress.log_event(event="here")
        print("inside")

    in_child(noting)
    progress.append_to(None)
    assert json.loads((tmp_path / "child.jsonl").read_text())["event"] == "here"
    assert capfd.readouterr().out.split() == ["before", "inside"]


def test_child_dies_with_its_parent(tmp_path):
    program = (
        "import os, sys, time; from pathlib import Path; from plumbline.core.run.processes import in_child\n"
        "in_child(lambda: (Path(sys.argv[1]).write_text(str(os.getpid())), time.sleep(60)))"
    )
    pid_file = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": str(Path("workflow").resolve())}
    with subprocess.Popen([sys.executable, "-c", program, str(pid_file)], env=environment) as parent:
        while not (pid_file.exists() and pid_file.read_text()):
            assert parent.poll() is None
            time.sleep(0.02)
        parent.kill()
    assert gone(int(pid_file.read_text()))


@pytest.fixture
def memory_group():
    """A control group of version 1 or 2 with 64 MiB of memory; where none may be made the test is left out."""
    root = Path("/sys/fs/cgroup")
    version_1 = (root / "memory").is_dir()
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    where = next((path for _, names, path in own if names == ("memory" if version_1 else "")), "/").lstrip("/")
    group = (root / "memory" if version_1 else root) / where / f"plumbline-test-{os.getpid()}"
    try:
        group.mkdir()
        limit = group / ("memory.limit_in_bytes" if version_1 else "memory.max")
        limit.write_text(str(64 * MEBIBYTE))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    deadline = time.monotonic() + 5
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    group.rmdir()


def test_child_that_the_kernel_kills_for_lack_of_memory_is_a_memory_error(memory_group):
    program = (
        "import sys; from pathlib import Path; from plumbline.core.run.processes import in_child\n"
        "Path(sys.argv[1], 'cgroup.procs').write_text('0')\n"
        "try: in_child(lambda: len(bytes(1 << 20) * 500))\n"
        "except MemoryError as error: print('MemoryError:', error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path("workflow").resolve())}
    command = [sys.executable, "-c", program, str(memory_group)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.stdout == "MemoryError: the kernel ended the process for lack of memory\n", answer.stderr
