"""A trial's own folder: it stays between attempts of one spec, and gives way to another's."""

from itertools import count
from pathlib import Path

from plumbline.core.files import write_text
from plumbline.core.plan.target import Spec, canonical, digest

MARKER = ".spec"


def prepared(folder: Path, spec: Spec) -> Path | None:
    """Makes `folder` ready for an attempt at `spec`; where the folder of another spec now lies, if there was one.

    What an earlier attempt at the same spec left stays, its checkpoints above all. What another spec left moves aside:
    a script that resumed from it would give that spec's result.
    """
    wanted = digest(canonical(spec.model_dump(mode="json")))
    marker, moved = folder / MARKER, None
    if folder.exists() and (not marker.exists() or marker.read_text().strip() != wanted):
        names = (folder.with_name(f"{folder.name}.stale-{number}") for number in count(1))
        moved = folder.rename(next(name for name in names if not name.exists()))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(marker, wanted + "\n")
    return moved
