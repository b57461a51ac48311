"""A trial's own folder: it stays between attempts of one spec, and gives way to another's."""

from itertools import count
from pathlib import Path
from typing import Any

from plumbline.core.files import write_text
from plumbline.core.plan.canonical import canonical, digest

IGNORED = {"metrics", "curves", "inputs", "stopped_at_seconds"}
"""Of a spec, what decides how a trial is read, or whether it runs again; not what its command does."""


def beside(folder: Path, suffix: str) -> Path:
    """A file of ours about the folder. It stands beside it: the command may want its folder empty, or empty it."""
    return folder.with_name(f"{folder.name}.{suffix}")


def prepared(folder: Path, values: dict[str, Any]) -> Path | None:
    """Makes `folder` ready for an attempt at the spec `values`; where another spec's folder now lies, if there was one.

    What an earlier attempt at the same spec left stays, its checkpoints above all. What another spec left moves aside:
    a script that resumed from it would give that spec's result. A command's spec is judged without the code of ours
    that runs it, and without its budget: a trial goes on in the folder of one with a smaller budget.
    """
    ignored = IGNORED | (set() if values.get("function") else {"code"})
    parameters = {name: value for name, value in values["parameters"].items() if name != values.get("budget")}
    known = {name: value for name, value in values.items() if name not in ignored} | {"parameters": parameters}
    wanted, budget = digest(canonical(known)), values["parameters"].get(values.get("budget"), 0)
    marker, moved = beside(folder, "spec"), None
    before, _, spent = marker.read_text().strip().partition(" ") if marker.exists() else ("", "", "")
    if folder.exists() and (before != wanted or float(spent or 0) > budget):
        names = (folder.with_name(f"{folder.name}.stale-{number}") for number in count(1))
        moved = folder.rename(next(name for name in names if not name.exists()))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(marker, f"{wanted} {budget}\n")
    return moved
