"""Atomic writes: an output is complete or absent."""

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError

_LFS = b"version https://git-lfs.github.com/spec/"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for a file or a folder; renamed to `path` when the block succeeds.

    It is flushed to disk before the rename. After an error it is removed and `path` stays as it was.
    Raises UserError when the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
        yield partial
        _flush(partial)
        if path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
        _flush_file(path.parent)
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError) and (mistake := storage_error(error, path)):
            raise mistake from error
        raise


def storage_error(error: OSError, path: Path) -> UserError | None:
    """The UserError for a full disk or a lack of permission while writing `path`; None for any other `error`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path}: no space left on the device; free some and run again: finished targets are kept")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return UserError(f"{path}: cannot be written ({error.strerror}); set `results` to a folder you can write to")
    return None


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path`, atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Writes `data` to `path`, atomically."""
    with atomic(path) as partial:
        partial.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` as indented JSON, atomically. Raises ValueError for NaN: JSON has no word for it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in the JSON file `path`. Raises UserError when it is missing or not valid JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); delete it to have it rebuilt") from None


def sha256_of_files(paths: Iterable[Path]) -> str:
    """SHA-256, in hex, over the names and contents of `paths`, in their order."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            whole.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\0".encode())
    return whole.hexdigest()


def is_lfs_pointer(path: Path) -> bool:
    """Whether `path` holds the three lines that Git leaves in place of a large file that it did not download."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_LFS)) == _LFS
    except OSError:
        return False


def visible_files(folder: Path) -> list[Path]:
    """The files below `folder`, sorted by their path; links are followed, except one to a folder that it is in.

    Left out is what a file manager hides or leaves behind: names that begin with a dot, such as the Mac's `._name`
    beside each file, and `__MACOSX`. A link that leads nowhere is among the files. Raises OSError.
    """
    found: list[Path] = []
    pending: list[tuple[Path, tuple[Path, ...]]] = [(folder, (folder.resolve(),))]
    while pending:
        place, above = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                path = place / entry.name
                if is_hidden(entry.name):
                    continue
                if not entry.is_dir():
                    found.append(path)
                elif (inner := path.resolve()) not in above:
                    pending.append((path, (*above, inner)))
    return sorted(found)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out wherever a user's folder is read."""
    return name.startswith(".") or name == "__MACOSX"


def _remove_left_over(path: Path) -> None:
    """Removes the temporary files of `path` that killed processes left behind."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        pid = int(partial.name.split(".")[-2])
        if pid == os.getpid() or not _is_alive(pid):
            _remove(partial)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if path.is_dir():
        for entry in path.rglob("*"):
            _flush_file(entry)
    _flush_file(path)


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
