"""A process among those that torchrun has started: its place, its device, its groups, and what it reports."""

import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, storage_error, write_json
from plumbline.core.measure.layout import shift_memory
from plumbline.core.run.device import memory_errors, torch_device
from plumbline.core.run.orphans import signal_at_death_of_parent
from plumbline.core.run.record import OutcomeError
from plumbline.data_parallel.ranks.board import Slot, State
from plumbline.data_parallel.ranks.launch import AGENT, REQUEST, RESULT

COLLECTIVE_TIMEOUT = 3600.0
"""Seconds. The watcher ends a trial that hangs long before, and names the rank, which a collective cannot."""
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL",
    "Timed out",
    "Connection refused",
)
ASKED = 3
"""Exit status of a launch that a signal asked to stop after its ranks had last agreed: the next one stops."""
UNMET = "connectFullMesh failed"
"""Of gloo, when ranks begin: each tells the others its address, a loopback where that is what its host's name means."""


class StopAskedError(Exception):
    """Some rank was asked to stop, so all do."""


@dataclass
class Rank:
    """This process: `rank` of `world`."""

    rank: int
    world: int
    device: torch.device
    slot: Slot
    folder: Path
    control: dist.ProcessGroup | None
    """A group on the CPU, for small things: who stops, what ranks tell each other."""
    launch: int = 0
    """How many launches came before."""
    asked_to_stop: bool = False
    """Whether a signal asked this rank, or in a launch before this one; the others know once they agree."""

    def answer(self, value: Any) -> None:
        """Hands a JSON value to the process that started the ranks; of rank 0 alone."""
        if self.rank == 0:
            write_json(self.folder / RESULT, value)

    def answered(self) -> list[Any]:
        """What the launches before this one answered, a list; of rank 0 alone."""
        found: list[Any] = read_json(self.folder / RESULT) if self.launch else []
        return found

    def gathered(self, value: Any) -> list[Any]:
        """What each rank gave, in their order, on every rank."""
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return values

    def agreeing(self, *values: int, group: dist.ProcessGroup | None = None) -> Callable[[], list[int]]:
        """Starts to agree on the largest of what the ranks give, for each value; the call of what it returns waits.

        group: one on the CPU; None is all ranks.
        """
        agreed = torch.tensor(values)
        under_way = dist.all_reduce(agreed, dist.ReduceOp.MAX, group=group or self.control, async_op=True)

        def wait() -> list[int]:
            under_way.wait()
            return [int(value) for value in agreed]

        return wait

    def is_asked_to_stop(self, group: dist.ProcessGroup | None = None) -> bool:
        """Whether a signal asked any rank to stop; all ranks of `group`, one on the CPU, call it at the same points.

        The answer is the same on each: a signal that comes while they agree counts the next time.
        """
        (asked,) = self.agreeing(self.asked_to_stop, group=group)()
        self.asked_to_stop |= bool(asked)
        return bool(asked)

    def is_asked_alone(self) -> bool:
        """Whether a signal asked this rank to stop."""
        return self.asked_to_stop

    def stop_if_asked(self) -> None:
        """Raises StopAskedError on every rank when any was asked to stop; all ranks call it at the same points."""
        if self.is_asked_to_stop():
            raise StopAskedError


def main(work: Callable[[Rank, Any], object]) -> NoReturn:
    """Calls `work` with this process's place and the request; ends the process. The argument is the ranks' folder."""
    slot = _begun()
    _end(_worked(slot, work, lambda found: True))


def main_of_launches(work: Callable[[Rank, Any], bool]) -> NoReturn:
    """As `main`, but calls `work` in a fork of this process, and as often as it asks for another launch.

    A fork has data, threads and connections of its own, as a new process has, and need not import torch again, which
    takes many times as long. Nothing may have started a thread or used a GPU before.
    """
    slot, own = _begun(), os.getpid()
    gc.freeze()  # a fork copies no pages only to collect what was imported
    launch, status = -1, 0
    while True:
        launch += 1
        child = os.fork()
        if child == 0:
            _die_with(own)
            shift_memory()
            _end(_worked(slot, work, lambda wants_another: not wants_another, launch, asked=status == ASKED))
        with _handing_on_to(child):
            _, waited = os.waitpid(child, 0)
        status = os.waitstatus_to_exitcode(waited)
        if slot.take_over() not in (State.STARTING, State.RUNNING) or status not in (0, ASKED):
            _end(int(status != 0))


def _begun() -> Slot:
    """This process's place on the board, once it is sure to end with torchrun."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # torchrun gives each rank a session of its own, beyond the reach of a signal to the group
    _die_with(int(os.environ[AGENT]))
    return Slot(Path(sys.argv[1]), int(os.environ["RANK"]))


def _die_with(parent: int) -> None:
    """Has the kernel end this process when its parent ends; ends it at once if that is no longer `parent`."""
    signal_at_death_of_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it was gone already; whoever adopts orphans is the parent now
        os._exit(1)


def _worked(
    slot: Slot,
    work: Callable[[Rank, Any], Any],
    is_last: Callable[[Any], bool],
    launch: int = 0,
    *,
    asked: bool = False,
) -> int:
    """Calls `work` and says on the board how it ended: done if what it returned `is_last`. Returns the exit status.

    A launch that is not the last says nothing, and ends with `ASKED` if a signal came after its ranks had agreed: the
    others go on to the next one, and wait there for this rank. asked: whether the one before ended so.
    """
    try:
        with memory_errors():
            request = read_json(slot.folder / REQUEST)
            rank = _joined(slot, request, launch)
            rank.asked_to_stop = asked
            signal.signal(signal.SIGTERM, _asking(rank))
            signal.signal(signal.SIGINT, _asking(rank))
            found = work(rank, request)
        if not is_last(found):
            return ASKED if rank.asked_to_stop else 0
        slot.set(State.INTERRUPTED if rank.asked_to_stop else State.DONE)
    except StopAskedError:
        slot.set(State.INTERRUPTED)
    except Exception as error:  # noqa: BLE001  whatever it is, the watcher must hear of it
        traceback.print_exc()
        slot.fail(**_described(error))
        return 1
    return 0


def _end(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # tearing down groups whose peers are gone would wait for them


@contextmanager
def _handing_on_to(child: int) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT go to the child."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _joined(slot: Slot, request: dict[str, Any], launch: int) -> Rank:
    device = torch_device(request.get("device", "auto"))
    if device.type == "cuda":
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise UserError(f"has no GPU: this host has {gpus}; lower data_parallel.worlds or set device: cpu")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=COLLECTIVE_TIMEOUT)
    store, number, world = next(rendezvous("env://", timeout=timeout))
    store = dist.PrefixStore(f"launch {launch}", store)  # torchrun's, which holds what earlier launches said
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=world, timeout=timeout)
    control = dist.new_group(backend="gloo", timeout=timeout)
    return Rank(number, world, device, slot, slot.folder, control, launch)


def _asking(rank: Rank) -> Callable[[int, FrameType | None], None]:
    def ask(number: int, frame: FrameType | None) -> None:
        rank.asked_to_stop = True

    return ask


def _described(error: Exception) -> dict[str, str]:
    """What the watcher must know of an error."""
    message = " ".join(str(error).split())[:500]
    if isinstance(error, UserError):
        return {"kind": "user_error", "message": message}
    if isinstance(error, OutcomeError):
        return {"kind": "outcome", "outcome": error.outcome.value, "message": message}
    if isinstance(error, MemoryError):
        return {"kind": "memory", "message": message}
    if isinstance(error, OSError) and (mistake := storage_error(error, Path(str(error.filename or "output")))):
        return {"kind": "user_error", "message": str(mistake)}
    is_of_torch = isinstance(error, dist.DistError | RuntimeError)
    if is_of_torch and UNMET in message and os.environ["WORLD_SIZE"] != os.environ["LOCAL_WORLD_SIZE"]:
        fix = "set GLOO_SOCKET_IFNAME to the network interface between the hosts, such as eth0"
        return {"kind": "user_error", "message": f"cannot connect to a rank of another host; {fix} ({message[:200]})"}
    if is_of_torch and any(phrase in message for phrase in LOST):
        return {"kind": "communication", "message": message[:200]}
    return {"kind": "fault", "message": f"{type(error).__name__}: {message}"}
