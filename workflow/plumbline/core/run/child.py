"""A function in a process of its own, made by fork: what it takes, breaks or leaves running ends with it."""

import ctypes
import faulthandler
import json
import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil

from plumbline.core.errors import UserError
from plumbline.core.measure.machine import cgroup_file
from plumbline.core.run.record import Outcome, OutcomeError

log = logging.getLogger("plumbline")

PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h
SECONDS_BETWEEN_LOOKS = 0.5


class TimeUpError(Exception):
    """The child took longer than it may."""


class ChildFault(Exception):
    """The child ended otherwise than by returning or by an error that `in_child` brings back."""


def in_child(function: Callable[[], Any], *, seconds: float | None = None) -> Any:
    """What `function` returns, as JSON holds it, computed in a fork of this process.

    Its UserError, OutcomeError and MemoryError are raised here as they were raised there; so is a MemoryError when the
    kernel killed it for lack of memory. Raises TimeUpError when it takes more than `seconds`, and ChildFault for any
    other end, with the traceback in the log. The child's own children end with it, and it ends with this process.
    To be called in the main thread, before this process has threads of its own: torch computing, or CUDA.
    """
    oom_kills = _oom_kills()
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.close(reading)
        _be_child(function, writing, parent)
    os.close(writing)
    with suppress(OSError):  # the child does it too, whoever comes first; it may have ended
        os.setpgid(child, child)
    status = None
    try:
        answer, status = _receive(reading, child, seconds)
    except BaseException:
        _end_below(child)
        raise
    finally:
        os.close(reading)
        with suppress(OSError):  # nobody is left
            os.killpg(child, signal.SIGKILL)
        if status is None:  # a child that is ending by itself keeps its own status
            status = os.waitpid(child, 0)[1]
    if answer.endswith(b"\n"):
        return _opened(json.loads(answer))
    ending = os.waitstatus_to_exitcode(status)
    if ending == -signal.SIGKILL and _oom_kills() > oom_kills:
        raise MemoryError("the kernel ended the process for lack of memory")
    if ending < 0:
        raise ChildFault(f"the child process was ended by {signal.Signals(-ending).name}")
    raise ChildFault(f"the child process left with exit status {ending} and no result")


def limit_address_space(size: int) -> None:
    """From now on, what takes this process beyond `size` bytes of address space fails for lack of memory."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def _be_child(function: Callable[[], Any], writing: int, parent: int) -> NoReturn:
    status = 1
    try:
        with suppress(PermissionError):  # the parent was faster
            os.setpgid(0, 0)
        _die_with(parent)
        faulthandler.enable(file=2)  # a crash in native code leaves its Python stack in the log
        answer = _answer(function) + b"\n"
        sys.stdout.flush()
        logging.shutdown()
        while answer:
            answer = answer[os.write(writing, answer) :]
        status = 0
    finally:
        os._exit(status)


def _end_below(child: int) -> None:
    """Ends all that the child started: what it started by `in_child` is in a group of its own."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(child).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _die_with(parent: int) -> None:
    """Has the kernel end this process when its parent ends, however that happens; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before it could be asked for
            os._exit(1)


def _answer(function: Callable[[], Any]) -> bytes:
    """What the function returned or raised, as one line of JSON."""
    try:
        return json.dumps({"value": function()}).encode()
    except UserError as error:
        answer = {"error": "mistake", "message": str(error)}
    except OutcomeError as error:
        answer = {"error": "found", "outcome": error.outcome.value, "message": str(error)}
    except MemoryError as error:
        answer = {"error": "memory", "message": str(error)}
    except BaseException as error:
        log.exception("in the child process:")
        answer = {"error": "fault", "message": f"{type(error).__name__}: {error}"}
    return json.dumps(answer).encode()  # outside the except block: what the failed call held is free again


def _opened(answer: dict[str, Any]) -> Any:
    match answer.get("error"):
        case None:
            return answer["value"]
        case "mistake":
            raise UserError(answer["message"])
        case "found":
            raise OutcomeError(Outcome(answer["outcome"]), answer["message"])
        case "memory":
            raise MemoryError(answer["message"])
    raise ChildFault(answer["message"])


def _receive(reading: int, child: int, seconds: float | None) -> tuple[bytes, int | None]:
    """What the child wrote, up to its one newline or its end; and its wait status if that was asked for on the way."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    began, received = time.monotonic(), b""
    while not received.endswith(b"\n"):
        left = SECONDS_BETWEEN_LOOKS
        if seconds is not None:
            left = min(left, seconds - (time.monotonic() - began))
            if left <= 0:
                raise TimeUpError(f"took longer than {seconds:g} s")
        if poll.poll(1000 * left):
            piece = os.read(reading, 1 << 16)
            if not piece:
                break
            received += piece
        else:  # a child of the child may hold the pipe open
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return received, status
    return received, None


def _oom_kills() -> int:
    """How many processes of this control group the kernel has killed for lack of memory; of the machine without one."""
    path = cgroup_file("memory.events") or cgroup_file("memory.oom_control", "memory") or Path("/proc/vmstat")
    if not path.exists():
        return 0
    fields = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
    return int(fields.get("oom_kill", 0))
