import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from plumbline.core.measure import run_queue
from plumbline.core.measure.run_queue import RunQueue


def compute(seconds: float) -> float:
    """Wall-clock seconds in which this thread computed for `seconds` of CPU time."""
    began, until = time.perf_counter(), time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    return time.perf_counter() - began


def test_a_wait_for_a_shared_core_is_counted_and_explains_the_time() -> None:
    core = {min(os.sched_getaffinity(0))}
    busy = "import os\nos.sched_setaffinity(0, {" + str(min(core)) + "})\nprint(flush=True)\nwhile True: pass"
    neighbour = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
    allowed = os.sched_getaffinity(0)
    try:
        assert neighbour.stdout is not None
        neighbour.stdout.readline()
        os.sched_setaffinity(0, core)
        queue = RunQueue()
        before = queue.times()
        wall = compute(0.2)
        waited = queue.waited_since(before, wall)
        queue.close()
    finally:
        os.sched_setaffinity(0, allowed)
        neighbour.kill()
        neighbour.wait()
    assert waited > 0.05
    assert wall - waited == pytest.approx(0.2, rel=0.15)


def test_sleeping_is_no_wait() -> None:
    queue = RunQueue()
    before = queue.times()
    time.sleep(0.3)
    assert queue.waited_since(before, 0.3) < 0.2
    queue.close()


def test_a_thread_that_has_ended_and_a_kernel_without_statistics_give_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = threading.Thread(target=time.sleep, args=(0.2,))
    thread.start()
    queue = RunQueue()
    before = queue.times()
    thread.join()
    time.sleep(0.1)
    assert len(queue.times()) == len(before)
    queue.close()
    monkeypatch.setattr(run_queue, "TASKS", tmp_path)
    assert RunQueue().waited_since([], 1.0) == 0.0


def test_a_wait_that_began_before_leaves_what_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads of 1 s: one computed 0.6 s of it and then slept; the other's wait of 5 s ends in it."""
    monkeypatch.setattr(run_queue, "TASKS", tmp_path)
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text("1000000000 0 1\n")
    queue = RunQueue()
    before = queue.times()
    (tmp_path / "1" / "schedstat").write_text("1600000000 100000000 2\n")
    (tmp_path / "2" / "schedstat").write_text("1100000000 5000000000 2\n")
    assert queue.waited_since(before, 1.0) == pytest.approx(0.4)
    assert queue.waited_since(before, 0.5) == 0.0
    queue.close()
