"""Functions and commands in processes of their own: what they take, break or leave running ends with them.

Linux only: the kernel says when a process has ended (pidfd), and ends it when its parent has.
"""

import faulthandler
import json
import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from plumbline.core.errors import UserError
from plumbline.core.measure.layout import shift_memory
from plumbline.core.measure.machine import cgroup_file
from plumbline.core.measure.priority import take_priority
from plumbline.core.run.orphans import (
    end_group_with_this_process,
    kill_below,
    signal_at_death_of_parent,
    start_keeper,
)
from plumbline.core.run.outcome import Outcome, OutcomeError

log = logging.getLogger("plumbline")


class TimeUpError(Exception):
    """The processes took longer than they may."""


class ChildFault(Exception):
    """A process ended otherwise than by success or by an error that `run_group` raises again."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One process of a group, such as a rank or a worker."""

    work: Callable[[], Any] | Sequence[str]
    """A function, which is called in a fork of this process, or a command with its arguments."""
    name: str = ""
    """What errors call it."""
    log: Path | None = None
    """The file that its stdout and stderr are appended to; None: where those of this process go."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it has besides those of this process."""
    first: bool = False
    """Whether it goes before other processes on a busy machine, as far as it may: see `take_priority`."""


def in_child(function: Callable[[], Any], *, seconds: float | None = None, first: bool = False) -> Any:
    """What `function` returns, as JSON holds it, computed in a fork of this process: `run_group` of one."""
    return run_group([Member(work=function, first=first)], seconds=seconds)[0]


def run_group(members: Sequence[Member], *, seconds: float | None = None) -> list[Any]:
    """Runs all members at once; what each function returned, as JSON holds it, and None for commands, in their order.

    The first member that fails ends the others. Its UserError, OutcomeError and MemoryError are raised here as they
    were raised there; so is a MemoryError when the kernel killed it for lack of memory. Any other end raises ChildFault
    with the member's name, how it ended and its log, which holds the traceback. Raises TimeUpError when not all are
    done within `seconds`. What the members started ends with the group, and all of it ends with this process, even if
    that is killed. To be called in the main thread, before this process has threads of its own: torch computing, CUDA.
    """
    oom_kills = oom_kill_count()
    sys.stdout.flush()
    sys.stderr.flush()
    keeper = start_keeper()
    running: list[_Running] = []
    try:
        for member in members:
            running.append(_Running(member, keeper))
        _wait_for_all(running, seconds, oom_kills)
    except BaseException:
        for one in running:
            one.end_below()
        raise
    finally:
        os.killpg(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        for one in running:
            one.end_group()
            one.close()
    return [one.result() for one in running]


def limit_address_space(size: int) -> None:
    """From now on, what takes this process beyond `size` bytes of address space fails for lack of memory."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


class _Running:
    """A member at work: its process, the pipe for its answer, and its wait status once that was asked for."""

    def __init__(self, member: Member, group: int) -> None:
        self.member = member
        self.answer = b""
        self.status: int | None = None
        self.is_open = True
        output = None if member.log is None else _opened_log(member.log)
        self.reading, writing = os.pipe()
        parent, self.pid = os.getpid(), os.fork()
        if self.pid == 0:
            os.close(self.reading)
            _be_member(member, output, writing, parent, group)
        os.close(writing)
        if output is not None:
            os.close(output)
        os.set_blocking(self.reading, False)
        with suppress(OSError):  # the child does it too, whoever comes first; it may have ended
            os.setpgid(self.pid, group)
        self.pidfd = os.pidfd_open(self.pid)

    def poll(self) -> None:
        """Asks whether the process has ended, then reads its answer: in this order, so that a last word is not lost."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        self.status = status if ended else None
        with suppress(BlockingIOError):
            while piece := os.read(self.reading, 1 << 16):
                self.answer += piece
            self.is_open = False

    @property
    def has_answered(self) -> bool:
        return self.answer.endswith(b"\n")

    @property
    def is_done(self) -> bool:
        return self.has_answered or self.status is not None

    def failure(self, oom_kills: int) -> Exception | None:
        """What went wrong with a member that is done."""
        work, name = self.member.work, self.member.name or "the process"
        if self.has_answered:
            return _error(json.loads(self.answer), self.member)
        assert self.status is not None
        ending = os.waitstatus_to_exitcode(self.status)
        if ending == -signal.SIGKILL and oom_kill_count() > oom_kills:
            return MemoryError(f"the kernel ended {name} for lack of memory")
        if ending < 0:
            return ChildFault(f"{name} was ended by {signal.Signals(-ending).name}{_see_log(self.member)}")
        if callable(work):
            return ChildFault(f"{name} ended with exit status {ending} and no result{_see_log(self.member)}")
        return ChildFault(f"{name} ended with exit status {ending}{_see_log(self.member)}") if ending else None

    def result(self) -> Any:
        """What the function returned; None for a command."""
        return json.loads(self.answer)["value"] if self.has_answered else None

    def end_below(self) -> None:
        """Ends all that the process has started, even what has left its group."""
        if self.status is None:
            kill_below(self.pid)

    def end_group(self) -> None:
        """Ends a member that has a session, and so a group, of its own."""
        if self.member.first:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Waits for the process, which has ended or is being killed."""
        os.close(self.reading)
        os.close(self.pidfd)
        if self.status is None:
            os.waitpid(self.pid, 0)


def _wait_for_all(running: Sequence[_Running], seconds: float | None, oom_kills: int) -> None:
    """Returns when all are done. Raises the first failure: of several at one poll that of a process that was killed,
    because the others may follow from it.
    """
    began, pending = time.monotonic(), list(running)
    while pending:
        left = None if seconds is None else seconds - (time.monotonic() - began)
        if left is not None and left <= 0:
            names = ", ".join(one.member.name for one in pending if one.member.name)
            raise TimeUpError(f"took longer than {seconds:g} s" + (f": {names}" if names else ""))
        poll = select.poll()
        for one in pending:
            poll.register(one.pidfd, select.POLLIN)
            if one.is_open:
                poll.register(one.reading, select.POLLIN)
        poll.poll(None if left is None else 1000 * left)
        for one in pending:
            one.poll()
        done = [one for one in pending if one.is_done]
        for one in sorted(done, key=lambda one: not os.WIFSIGNALED(one.status or 0)):
            if error := one.failure(oom_kills):
                raise error
        pending = [one for one in pending if not one.is_done]


def _be_member(member: Member, output: int | None, writing: int, parent: int, group: int) -> NoReturn:
    status = 1
    try:
        os.setpgid(0, group)
        signal_at_death_of_parent(signal.SIGKILL)
        if os.getppid() != parent:  # it ended before it could be watched
            os._exit(1)
        if output is not None:
            os.dup2(output, 1)
            os.dup2(output, 2)
        if member.first:
            os.setsid()  # and so leaves the keeper's group
            take_priority()
            end_group_with_this_process()
        os.environ.update(member.environment)
        shift_memory()
        faulthandler.enable(file=2)  # a crash in native code leaves its Python stack in the log
        answer = _answer(member.work if callable(member.work) else partial(_execute, member.work)) + b"\n"
        sys.stdout.flush()
        logging.shutdown()
        while answer:
            answer = answer[os.write(writing, answer) :]
        status = 0
    finally:
        os._exit(status)


def _execute(command: Sequence[str]) -> NoReturn:
    """Becomes `command`, with nothing to read and Python's changes to signals undone."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(command[0], list(command))


def _opened_log(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


def _see_log(member: Member) -> str:
    return f"; see {member.log}" if member.log else ""


def _answer(function: Callable[[], Any]) -> bytes:
    """What the function returned or raised, as one line of JSON."""
    try:
        return json.dumps({"value": function()}).encode()
    except UserError as error:
        answer = {"error": "user_error", "message": str(error)}
    except OutcomeError as error:
        answer = {"error": "outcome", "outcome": error.outcome.value, "message": str(error)}
    except MemoryError as error:
        answer = {"error": "memory", "message": str(error)}
    except BaseException as error:
        log.exception("in the child process:")
        answer = {"error": "fault", "message": f"{type(error).__name__}: {error}"}
    return json.dumps(answer).encode()  # outside the except block: what the failed call held is free again


def _error(answer: dict[str, Any], member: Member) -> Exception | None:
    """The error in an answer; None where it holds a result."""
    match answer.get("error"):
        case None:
            return None
        case "user_error":
            return UserError(answer["message"])
        case "outcome":
            return OutcomeError(Outcome(answer["outcome"]), answer["message"])
        case "memory":
            return MemoryError(answer["message"])
    name = f"{member.name}: " if member.name else ""
    return ChildFault(f"{name}{answer['message']}{_see_log(member)}")


def oom_kill_count() -> int:
    """How many processes of this control group the kernel has killed for lack of memory; of the machine without one."""
    path = cgroup_file("memory.events") or cgroup_file("memory.oom_control", "memory") or Path("/proc/vmstat")
    if not path.exists():
        return 0
    fields = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
    return int(fields.get("oom_kill", 0))
