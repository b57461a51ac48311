"""Locks: one run at a time per results folder, one process at a time per target."""

import fcntl
import logging
import os
from pathlib import Path
from typing import IO

from plumbline.core.errors import UserError
from plumbline.core.files import storage_error

FIX = "name another folder with --config results=FOLDER"
_held: list[IO[str]] = []
log = logging.getLogger("plumbline")


def check_writable(folder: Path) -> None:
    """Raises UserError unless `folder`, or the nearest folder above it that exists, can be written to."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"results: {folder} cannot be created: {there} is a file; {FIX}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"results: {folder} cannot be written: no permission to write to {there}; {FIX}")


def hold(folder: Path) -> None:
    """Creates `folder` and holds its lock until this process ends: the kernel releases it, however the process ends.

    Raises UserError when another run holds it, or the folder cannot be written.
    """
    check_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        fault = storage_error(error, folder)
        raise fault or UserError(f"results: {folder} cannot be created ({error.strerror}); {FIX}") from error
    _lock(stream, folder, fcntl.LOCK_EX)
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    _held.append(stream)


def check_free(folder: Path) -> None:
    """Raises UserError when a run holds the lock of `folder`. One that begins later is refused by `hold`."""
    path = folder / ".lock"
    if path.exists():
        with path.open(encoding="utf-8") as stream:
            _lock(stream, folder, fcntl.LOCK_SH)


def _lock(stream: IO[str], folder: Path, kind: int) -> None:
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        raise UserError(
            f"{folder}: process {stream.read().strip()} is using it; wait until it ends, or stop it"
        ) from None


def lock_target(journal: Path) -> None:
    """Locks the journal of a target until this process ends; waits while another process holds it.

    A job can outlive a run that was killed; the next run must not work on the same target at the same time.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    stream = journal.open("a", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("%s: a job of an earlier run is still working on this target; waiting for it", journal)
        fcntl.flock(stream, fcntl.LOCK_EX)
    _held.append(stream)
