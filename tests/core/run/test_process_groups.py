"""Ranks and workers: real processes that succeed, fail, hang, start others, and lose their parent."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from plumbline.core.errors import UserError
from plumbline.core.run.orphans import ending_orphans
from plumbline.core.run.processes import ChildFault, Member, TimeUpError, in_child, run_group
from plumbline.core.run.record import Outcome, OutcomeError

SLEEP = ("sleep", "60")


def gone(pid):
    """Whether nothing is left of a process within a few seconds, not even a zombie, unless that waits for init."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            left = psutil.Process(pid)
            if left.status() != psutil.STATUS_ZOMBIE or left.ppid() == os.getpid():
                time.sleep(0.02)
                continue
        return True
    return False


def noting(folder, name, then):
    """A function that writes its process id to a file and then does something."""

    def work():
        (folder / name).write_text(str(os.getpid()))
        return then()

    return work


def noted(folder):
    """The process ids in the files of a folder, by file."""
    return {path.name: int(path.read_text()) for path in folder.iterdir()}


def wait_for(*paths):
    deadline = time.monotonic() + 20
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_child_is_left():
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before  # zombies count


def test_results_come_in_the_order_of_the_ranks_and_not_in_that_of_their_ends():
    def rank(number):
        time.sleep(0.3 - 0.1 * number)
        return {"rank": number, "pid": os.getpid()}

    results = run_group([Member(work=lambda number=number: rank(number)) for number in range(3)])
    assert [result["rank"] for result in results] == [0, 1, 2]
    assert len({result["pid"] for result in results}) == 3


def test_ranks_run_at_once():
    reading, writing = os.pipe()
    second = Member(work=lambda: os.write(writing, b"from the second"))
    assert run_group([Member(work=lambda: os.read(reading, 99).decode()), second], seconds=20) == [
        "from the second",
        15,
    ]


def test_commands_and_functions_each_write_to_their_own_log_with_their_own_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SHARED", "shared")
    shell = ("sh", "-c", "echo $SHARED $RANK; echo to stderr >&2")

    def speaks():
        os.write(1, os.environ["RANK"].encode())

    members = [
        Member(work=shell, log=tmp_path / "logs" / "0.log", environment={"RANK": "rank 0"}),
        Member(work=speaks, log=tmp_path / "logs" / "1.log", environment={"RANK": "rank 1"}),
        Member(work=lambda: "RANK" in os.environ),
    ]
    assert run_group(members) == [None, None, False]
    assert run_group(members[1:2]) == [None]
    assert (tmp_path / "logs" / "0.log").read_text() == "shared rank 0\nto stderr\n"
    assert (tmp_path / "logs" / "1.log").read_text() == "rank 1" * 2  # appended
    assert "RANK" not in os.environ


def test_a_command_has_nothing_to_read_and_dies_of_a_broken_pipe_as_in_a_shell(tmp_path):
    log = tmp_path / "log"
    run_group([Member(work=("sh", "-c", "cat; yes | head -n 1; echo ${PIPESTATUS:-ends}"), log=log)], seconds=20)
    assert log.read_text() == "y\nends\n"


@pytest.mark.parametrize(
    ("work", "ending"),
    [
        (("sh", "-c", "exit 3"), "ended with exit status 3"),
        (("sh", "-c", "kill -KILL $$"), "was ended by SIGKILL"),
        (lambda: os._exit(3), "ended with exit status 3 and no result"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "was ended by SIGSEGV"),
        (("no-such-program",), "FileNotFoundError"),
    ],
)
def test_the_first_to_fail_is_named_with_its_end_and_its_log_and_the_others_end(tmp_path, work, ending):
    pids, log = tmp_path / "pids", tmp_path / "1.log"
    pids.mkdir()
    members = [
        Member(work=noting(pids, "0", lambda: time.sleep(60)), name="rank 0"),
        Member(work=work, name="rank 1", log=log),
        Member(work=SLEEP, name="rank 2"),
    ]
    began = time.monotonic()
    with pytest.raises(ChildFault, match=rf"^rank 1:? {ending}.*; see {log}$"):
        run_group(members)
    assert time.monotonic() - began < 10
    assert all(gone(pid) for pid in noted(pids).values())


def test_an_error_of_a_rank_is_a_fault_with_its_traceback_in_the_log_of_the_rank(tmp_path):
    def fails():
        logging.getLogger("plumbline").addHandler(logging.StreamHandler(os.fdopen(2, "w")))  # as in a stage
        return 1 / 0

    with pytest.raises(ChildFault, match=r"^worker b: ZeroDivisionError: division by zero; see .*b\.log$"):
        run_group([Member(work=SLEEP), Member(work=fails, name="worker b", log=tmp_path / "b.log")])
    log = (tmp_path / "b.log").read_text()
    assert "Traceback" in log
    assert "return 1 / 0" in log


def test_mistakes_and_findings_of_a_rank_are_raised_as_themselves():
    def mistake():
        raise UserError("data_parallel.ranks: 3 does not divide batch 8")

    def diverged():
        raise OutcomeError(Outcome.DIVERGED, "step 4: loss nan")

    with pytest.raises(UserError, match=r"^data_parallel.ranks: 3 does"):
        run_group([Member(work=SLEEP), Member(work=mistake, name="rank 1")])
    with pytest.raises(OutcomeError, match=r"^step 4") as found:
        run_group([Member(work=diverged, name="rank 0"), Member(work=SLEEP)])
    assert found.value.outcome is Outcome.DIVERGED


def test_the_killed_rank_is_the_culprit_and_not_the_one_that_lost_its_peer(tmp_path):
    def peer():
        wait_for(tmp_path / "1")
        other = noted(tmp_path)["1"]
        while psutil.pid_exists(other) and psutil.Process(other).status() != psutil.STATUS_ZOMBIE:
            pass
        raise ConnectionError("the peer is gone")

    def killed():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)

    members = [Member(work=peer, name="rank 0"), Member(work=noting(tmp_path, "1", killed), name="rank 1")]
    with pytest.raises(ChildFault, match=r"^rank 1 was ended by SIGKILL$"):
        run_group(members, seconds=20)


def test_of_two_ends_seen_at_one_moment_the_killed_rank_is_the_culprit(tmp_path):
    def stops_its_parent_until_both_have_ended():
        wait_for(tmp_path / "0", tmp_path / "1")
        os.kill(os.getppid(), signal.SIGSTOP)
        (tmp_path / "stopped").write_text("0")
        others = [psutil.Process(noted(tmp_path)[name]) for name in "01"]
        while any(other.status() != psutil.STATUS_ZOMBIE for other in others):
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGCONT)
        time.sleep(60)

    def ending(how):
        wait_for(tmp_path / "stopped")
        how()

    def culprit():
        ends = [lambda: os._exit(1), lambda: os.kill(os.getpid(), signal.SIGKILL)]
        ranks = [
            Member(work=noting(tmp_path, str(rank), lambda end=end: ending(end)), name=f"rank {rank}")
            for rank, end in enumerate(ends)
        ]
        try:
            run_group([*ranks, Member(work=stops_its_parent_until_both_have_ended)])
        except ChildFault as fault:
            return str(fault)

    assert in_child(culprit, seconds=30) == "rank 1 was ended by SIGKILL"


def test_those_that_hang_past_the_deadline_are_named_and_ended(tmp_path):
    members = [
        Member(work=lambda: 1, name="rank 0"),
        Member(work=noting(tmp_path, "1", lambda: time.sleep(60)), name="rank 1"),
        Member(work=SLEEP, name="rank 2"),
    ]
    began = time.monotonic()
    with pytest.raises(TimeUpError, match=r"^took longer than 0\.8 s: rank 1, rank 2$"):
        run_group(members, seconds=0.8)
    assert time.monotonic() - began < 10
    assert gone(noted(tmp_path)["1"])


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_what_a_rank_leaves_running_ends_with_the_group(tmp_path, ends):
    script = f"sleep 60 & echo $! > {tmp_path}/below; " + ("exit 0" if ends == "well" else "exit 1")
    member = Member(work=("sh", "-c", script), name="rank 0")
    if ends == "well":
        run_group([member])
    else:
        with pytest.raises(ChildFault, match="exit status 1"):
            run_group([member])
    assert gone(noted(tmp_path)["below"])


def test_a_grandchild_that_left_the_group_ends_when_a_rank_fails(tmp_path):
    def starts_one():
        below = subprocess.Popen(SLEEP, start_new_session=True)
        (tmp_path / "below").write_text(str(below.pid))
        time.sleep(60)

    def fails():
        wait_for(tmp_path / "below")
        sys.exit(1)

    with pytest.raises(ChildFault, match="rank 1"):
        run_group([Member(work=starts_one), Member(work=fails, name="rank 1")])
    assert gone(noted(tmp_path)["below"])


def test_all_ends_when_the_parent_is_killed_grandchildren_included(tmp_path):
    program = (
        "import os, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from plumbline.core.run.processes import Member, run_group\n"
        "def rank():\n"
        "    (folder / 'rank').write_text(str(os.getpid()))\n"
        "    below = subprocess.Popen(['sleep', '60'])\n"
        "    (folder / 'below').write_text(str(below.pid))\n"
        "    time.sleep(60)\n"
        "folder = Path(sys.argv[1])\n"
        "command = ('sh', '-c', f'echo $$ > {folder}/command; sleep 60 & echo $! > {folder}/below-command; wait')\n"
        "run_group([Member(work=rank), Member(work=command)])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path("workflow").resolve())}
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment)
    try:
        wait_for(*(tmp_path / name for name in ("rank", "below", "command", "below-command")))
        keepers = psutil.Process(parent.pid).children()
    finally:
        parent.kill()
        parent.wait()
    assert len(noted(tmp_path)) == 4
    assert all(gone(pid) for pid in (*noted(tmp_path).values(), *(one.pid for one in keepers)))


def test_interrupting_the_parent_ends_the_group(tmp_path):
    def interrupt():
        wait_for(tmp_path / "0")
        time.sleep(0.5)  # Python drops what interrupts its own work around a fork
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_group([Member(work=noting(tmp_path, "0", lambda: time.sleep(60))), Member(work=interrupt)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert gone(noted(tmp_path)["0"])


def test_a_log_that_cannot_be_opened_is_an_error_here_and_ends_those_already_started(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        run_group([Member(work=SLEEP), Member(work=SLEEP, log=tmp_path / "file" / "1.log")])


def test_orphans_that_left_the_group_are_ended_and_nothing_else_is_and_later_ones_are_not_adopted(tmp_path):
    leaves_one = "setsid sleep 60 & echo $! > "
    with subprocess.Popen(SLEEP) as started_before:
        with ending_orphans():
            run_group([Member(work=("sh", "-c", f"{leaves_one} {tmp_path}/below"))])
            assert psutil.Process(noted(tmp_path)["below"]).ppid() == os.getpid()
        assert gone(noted(tmp_path)["below"])
        assert started_before.poll() is None
        started_before.kill()
    run_group([Member(work=("sh", "-c", f"{leaves_one} {tmp_path}/later"))])
    later = psutil.Process(noted(tmp_path)["later"])
    assert later.ppid() != os.getpid()
    later.kill()
