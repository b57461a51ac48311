"""A cheap fingerprint of a user's file or folder: when it changes, everything built from it is stale."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.files import visible_files


def fingerprint(path: Path) -> str:
    """SHA-256 over relative names, sizes and modification times (ns) of the files under `path`; contents are not read.

    Hidden files and folders are ignored, links are followed (see `visible_files`). Moving or renaming `path` itself
    changes nothing. Raises UserError when it does not exist or cannot be read.
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
    for name, file in sorted((file.relative_to(path).as_posix(), file) for file in visible_files(path)):
        yield name, file.stat() if file.exists() else file.lstat()
