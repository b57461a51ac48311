"""A cache of what `code_of` finds, beside the package's bytecode: reading every source takes seconds at each start.

It is valid only for the Python version and the contents of all sources it was made from; otherwise it is rebuilt. Where
Python writes no bytecode, it is not written either. Nothing is cached for a user's own modules.
"""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.files import write_text
from plumbline.core.plan.code import code_of
from plumbline.core.plan.modules import OURS, source

Root = tuple[str, ...]
"""A stage's module, and the modules that it loads by a computed name."""


def kept_code_of(*root: str) -> dict[str, str]:
    """What `code_of` finds, from the cache if it is there."""
    return _kept().get(_name(root)) or code_of(*root)


def keep_code_of(roots: Iterable[Root]) -> None:
    """Caches what `code_of` finds for `roots`, for the next start."""
    ours = [root for root in roots if all(module.partition(".")[0] == OURS for module in root)]
    missing = {root for root in ours if _name(root) not in _kept()}
    if missing and not sys.dont_write_bytecode:
        found = _kept() | {_name(root): code_of(*root) for root in missing}
        # else one was edited meanwhile, and which version was read is not known
        if _sources_now() == _sources() is not None:
            with suppress(UserError, OSError):
                write_text(_path(), json.dumps({"sources": _sources(), "found": found}))


@cache
def _kept() -> dict[str, dict[str, str]]:
    """Closures by the name of their root."""
    _sources()  # before any is read
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(_path().read_text(encoding="utf-8"))
        if kept["sources"] == _sources() is not None:
            found: dict[str, dict[str, str]] = kept["found"]
            return found
    return {}


@cache
def _sources() -> str | None:
    """The digest of the sources when they were first asked for."""
    return _sources_now()


def _sources_now() -> str | None:
    """SHA-256, in hex, over Python's version and the names and contents of all modules of this package.

    None where one cannot be read, such as one that is just being removed: then nothing is kept, or taken.
    """
    whole, package = hashlib.sha256(sys.version.encode()), _package().parent
    for path in sorted(package.rglob("*.py")):
        if not path.name.startswith("."):  # locks of editors
            try:
                content = path.read_bytes()
            except OSError:
                return None
            whole.update(f"{path.relative_to(package)}\0{len(content)}\0".encode())
            whole.update(content)
    return whole.hexdigest()


def _package() -> Path:
    found = source(OURS)
    assert found is not None
    return found


def _path() -> Path:
    return Path(importlib.util.cache_from_source(str(_package()))).with_name("code.json")


def _name(root: Root) -> str:
    return " ".join(root)
