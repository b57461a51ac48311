"""What each rank says of itself, in memory that its files map: a watcher reads it while the rank computes or hangs."""

import hashlib
import json
import mmap
import os
import struct
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from plumbline.core.files import write_json
from plumbline.core.run.liveness import boot_id

_LAYOUT = struct.Struct("<5q")


class State(StrEnum):
    """How far a rank is."""

    STARTING = "starting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It raised an error, which stands in its error file."""
    INTERRUPTED = "interrupted"
    """It was asked to stop, and has."""


_STATES = tuple(State)


@dataclass(frozen=True)
class Sighting:
    """What was read of one rank."""

    rank: int
    pid: int
    state: State
    beats: int
    """How often it reported; the ranks of a step report at the same points."""
    step: int
    host: int
    """A number of the host that it runs on."""
    error: dict[str, Any] | None

    @property
    def is_here(self) -> bool:
        """Whether it runs on this host, where its process can be looked at."""
        return self.host == _this_host()

    def process_status(self) -> str | None:
        """psutil's word for its process, None when it is gone; only of a rank that is here."""
        try:
            status: str = psutil.Process(self.pid).status()
        except psutil.NoSuchProcess:
            return None
        return None if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) else status


class Slot:
    """A rank's own entry on the board in `folder`."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self._beats = self._step = 0
        path = _slot(folder, rank)
        partial = path.with_suffix(".new")
        partial.write_bytes(bytes(_LAYOUT.size))
        with partial.open("r+b") as stream:
            self._memory = mmap.mmap(stream.fileno(), _LAYOUT.size)
        self.set(State.STARTING)
        partial.replace(path)

    def set(self, state: State) -> None:
        """Says how far it is."""
        self._state = state
        self._write()

    def beat(self, step: int | None = None) -> None:
        """Says that it gets on; takes a microsecond. Before the third time it is still starting: torch loads late."""
        self._beats += 1
        if self._beats == 3:
            self._state = State.RUNNING
        self._step = self._step if step is None else step
        self._write()

    def take_over(self) -> State:
        """Puts this process in the place of one that it forked; how far that one was when it wrote last."""
        _, state, self._beats, self._step, _ = _LAYOUT.unpack(self._memory)
        self._state = _STATES[state]
        self._write()
        return self._state

    def fail(self, **error: str) -> None:
        """Leaves an error: its `kind`, `message` and, where that is its kind, `outcome`."""
        write_json(_error(self.folder, self.rank), {**error, "time": time.time()})
        self.set(State.FAILED)

    def _write(self) -> None:
        _LAYOUT.pack_into(
            self._memory, 0, os.getpid(), _STATES.index(self._state), self._beats, self._step, _this_host()
        )


def read(folder: Path, world: int) -> list[Sighting]:
    """Every rank that has an entry."""
    found = []
    for rank in range(world):
        path, error = _slot(folder, rank), _error(folder, rank)
        if path.exists():
            pid, state, beats, step, host = _LAYOUT.unpack(path.read_bytes())
            said = json.loads(error.read_text()) if error.exists() else None
            found.append(Sighting(rank, pid, _STATES[state], beats, step, host, said))
    return found


def host_number(name: str, boot: str | None) -> int:
    """A number that no other host has: of its whole name, and of its boot, as containers may share a name."""
    return int.from_bytes(hashlib.sha256(f"{name}/{boot}".encode()).digest()[:7], "big")


@cache
def _this_host() -> int:
    return host_number(os.uname().nodename, boot_id())


def _slot(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.slot"


def _error(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.error.json"
