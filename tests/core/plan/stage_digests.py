"""Reading the digests of stages, and of packages that tests write or copy, and edit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import plumbline
from plumbline import config
from plumbline.core.plan import code, kept_code, modules
from plumbline.core.plan.kept_code import Root

PROJECT = Path(__file__).parents[3]
MORE = {"throughput": {"timing": {"max_batch": True}, "variants": {"paths": ["models/mine"]}}}
MORE["sweep"] = {
    "s": {
        "command": "run {x} {epochs} {seed} {folder}",
        "search": {"sampler": "tpe", "space": {"x": {"low": 0, "high": 1}}},
        "halving": {"budget": "epochs", "low": 1, "high": 3},
        "metric": {"name": "score", "goal": "max"},
    }
}
"""For stages that the default config does not ask for."""
CACHED = (code.code_of, code._read, code._digest, modules.parsed, modules.source, kept_code._kept, kept_code._sources)


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


def roots() -> set[Root]:
    """Every stage of every study, with each set of modules that its targets name."""
    plans = [*config.load([PROJECT / "config.yaml"]).plan(), *config.check(MORE).plan()]
    return {one.root for one in plans}
