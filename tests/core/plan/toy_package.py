"""Reading the digests of packages that tests write or copy, and edit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import plumbline
from plumbline.core.plan import code, modules

CACHED = (code.code_of, code._read, code._digest, code._module, modules.source)


def forget() -> None:
    """Has every source read again."""
    for cached in CACHED:
        cached.cache_clear()


def digests(stage: str, *named: str) -> dict[str, str]:
    """The digests of the code as it is on the disk now."""
    forget()
    return code.code_of(stage, *named)


@contextmanager
def read_from(package: Path) -> Iterator[None]:
    """Reads the modules of plumbline from the copy `package`."""
    spec = plumbline.__spec__
    assert spec is not None
    origin, spec.origin = spec.origin, str(package / "__init__.py")
    forget()
    try:
        yield
    finally:
        spec.origin = origin
        forget()
