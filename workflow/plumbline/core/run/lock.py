"""One run at a time writes to a results folder, one process at a time to a target."""

import fcntl
import logging
import os
from pathlib import Path
from typing import IO

from plumbline.core.errors import UserError
from plumbline.core.files import storage_mistake

WAY_OUT = "name another folder with --config results=FOLDER"
_held: list[IO[str]] = []
log = logging.getLogger("plumbline")


def check_writable(folder: Path) -> None:
    """Raises UserError unless `folder`, or the nearest folder above it that exists, can be written to."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"results: {folder} cannot be made, {there} is a file; {WAY_OUT}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"results: {folder} cannot be written, {there} is not yours to write to; {WAY_OUT}")


def hold(folder: Path) -> None:
    """Creates `folder` and holds its lock until this process ends, however it ends: the kernel lets go of it.

    Raises UserError when another run holds it, or the folder cannot be written.
    """
    check_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise storage_mistake(error, folder) or error from error
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        raise UserError(
            f"{folder}: process {stream.read().strip()} is running on it; wait for it to end, or end it"
        ) from None
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    _held.append(stream)


def lock_target(journal: Path) -> None:
    """Holds the journal of a target until this process ends; waits while another holds it.

    A job outlives a run that was killed alone; the run that follows must not work on its target beside it.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    stream = journal.open("a", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("%s: a job of an earlier run still works on this target; waiting for it to end", journal)
        fcntl.flock(stream, fcntl.LOCK_EX)
    _held.append(stream)
