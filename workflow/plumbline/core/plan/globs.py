"""Files that the config names by glob patterns."""

import glob
from collections.abc import Sequence
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.files import is_lfs_pointer


def matching(globs: Sequence[str], key: str) -> list[Path]:
    """The files that match any of `globs`, each once, sorted; `**` matches any depth.

    Raises UserError, naming the config's `key`, when a pattern matches none; and for what Git left in place of a file.
    """
    found: set[Path] = set()
    for number, pattern in enumerate(globs):
        # Unlike Path.glob, it takes absolute patterns and skips hidden files.
        paths = [Path(path) for path in glob.glob(str(Path(pattern).expanduser()), recursive=True)]  # noqa: PTH207
        files = {path for path in paths if path.is_file()}
        if not files and any(path.is_dir() for path in paths):
            raise UserError(f"{key}[{number}]: {pattern} is a folder; name the files in it, as {pattern}/**/*.txt")
        if not files:
            raise UserError(f"{key}[{number}]: {pattern} matches no file")
        if pointers := sorted(filter(is_lfs_pointer, files)):
            raise UserError(f"{pointers[0]}: is a Git LFS pointer, not the text; run `git lfs pull` in its repository")
        found |= files
    return sorted(found)
