"""A cheap fingerprint of a user's file or folder: when it changes, everything built from it is stale."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from plumbline.core.errors import UserError


def fingerprint(path: Path) -> str:
    """SHA-256 over relative names, sizes and modification times (ns) of the files under `path`; contents are not read.

    Hidden files and folders are ignored. Moving or renaming `path` itself changes nothing. Raises UserError when it
    does not exist or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for name, status in _files(path):
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: does not exist") from None
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Relative name and status of `path` itself, or of the files under it, in the order of their names."""
    if not path.is_dir():
        yield ".", path.stat()
        return
    pending = [""]
    found = []
    while pending:
        folder = pending.pop()
        with os.scandir(path / folder) as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.name.startswith("."):
                    continue
                # A link to a folder is not followed: it could point back up.
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                elif not entry.is_dir():
                    found.append((name, entry.stat()))
    yield from sorted(found, key=lambda pair: pair[0])
