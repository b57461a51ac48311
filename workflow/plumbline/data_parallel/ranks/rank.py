"""A process among those that torchrun has started: its place, its device, its groups, and what it reports."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, storage_error, write_json
from plumbline.core.run.device import memory_errors, torch_device
from plumbline.core.run.orphans import signal_at_death_of_parent
from plumbline.core.run.record import OutcomeError
from plumbline.data_parallel.ranks.board import Slot, State
from plumbline.data_parallel.ranks.launch import AGENT, RESULT

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
    asked_to_stop: bool = field(default=False)

    def answer(self, value: Any) -> None:
        """Hands a JSON value to the process that started the ranks; of rank 0 alone."""
        if self.rank == 0:
            write_json(self.folder / RESULT, value)

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
        """Whether a signal asked any rank to stop; all ranks of `group`, one on the CPU, call it at the same points."""
        (asked,) = self.agreeing(self.asked_to_stop, group=group)()
        self.asked_to_stop |= bool(asked)
        return self.asked_to_stop

    def is_asked_alone(self) -> bool:
        """Whether a signal asked this rank to stop."""
        return self.asked_to_stop

    def stop_if_asked(self) -> None:
        """Raises StopAskedError on every rank when any was asked to stop; all ranks call it at the same points."""
        if self.is_asked_to_stop():
            raise StopAskedError


def main(work: Callable[[Rank, Any], None]) -> NoReturn:
    """Calls `work` with this process's place and the request; ends the process. The argument is the ranks' folder."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # torchrun gives each rank a session of its own, beyond the reach of a signal to the group
    signal_at_death_of_parent(signal.SIGKILL)
    if os.getppid() != int(os.environ[AGENT]):  # torchrun was gone already; whoever adopts orphans is its parent now
        os._exit(1)
    folder, number = Path(sys.argv[1]), int(os.environ["RANK"])
    slot = Slot(folder, number)
    status = 1
    try:
        with memory_errors():
            rank = _joined(slot, folder, read_json(folder / "request.json"))
            signal.signal(signal.SIGTERM, _asking(rank))
            signal.signal(signal.SIGINT, _asking(rank))
            work(rank, read_json(folder / "request.json"))
        slot.set(State.INTERRUPTED if rank.asked_to_stop else State.DONE)
        status = 0
    except StopAskedError:
        slot.set(State.INTERRUPTED)
        status = 0
    except Exception as error:  # noqa: BLE001  whatever it is, the watcher must hear of it
        traceback.print_exc()
        slot.fail(**_described(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # tearing down groups whose peers are gone would wait for them


def _joined(slot: Slot, folder: Path, request: dict[str, Any]) -> Rank:
    device = torch_device(request.get("device", "auto"))
    if device.type == "cuda":
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise UserError(f"has no GPU: this host has {count}; lower data_parallel.worlds or set device: cpu")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=COLLECTIVE_TIMEOUT)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    control = dist.new_group(backend="gloo", timeout=timeout)
    return Rank(dist.get_rank(), dist.get_world_size(), device, slot, folder, control)


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
