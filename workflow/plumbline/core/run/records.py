"""All records of a study: read, checked against the plan, and merged into one file."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_text
from plumbline.core.plan.target import canonical, digest
from plumbline.core.run.record import REBUILD, SCHEMA, AnyRecord, Record, hardware
from plumbline.core.settings import validated


def record_files(folder: Path) -> Iterator[str]:
    """JSON files in trials/ of a study's `folder`, and in trials/ of each folder in it, as a sweep has them."""
    for top in (folder / "trials", *sorted(folder.glob("*/trials"))):
        for place, folders, files in os.walk(top):
            folders.sort()
            yield from (f"{place}/{name}" for name in sorted(files) if name.endswith(".json") and name[0] != ".")


def read_records(
    model: type[AnyRecord], paths: Sequence[Path], expected: Mapping[str, str] | None = None
) -> list[AnyRecord]:
    """The records at `paths`, in that order. expected: trial -> digest of the spec it must have been made from.

    Raises UserError when there is none, when a file is not a record of this model, when two record the same trial, or
    when one was made from another spec.
    """
    if not paths:
        study = model.model_fields["study"].default
        raise UserError(f"{study}: no record was given; run its trials first: snakemake --cores all {study}")
    records: dict[str, AnyRecord] = {}
    for path in paths:
        record = model.read(path)
        if record.trial in records:
            raise UserError(f"{path}: trial {record.trial} is recorded twice; keep one of the files")
        records[record.trial] = record
    if expected is not None:
        check_specs(records.values(), expected)
    return list(records.values())


def check_specs(records: Iterable[Record], expected: Mapping[str, str]) -> None:
    """Raises UserError naming the first records that were not made from the plan's specs.

    expected: trial -> digest of its spec, from `recorded`. Snakemake reruns such trials by itself, unless a profile
    tells it to go by file times alone.
    """
    stale = [record.trial for record in records if expected.get(record.trial) != digest(canonical(record.spec))]
    if stale:
        names = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
        raise UserError(
            f"{names}: recorded with settings or code other than today's (`plumbline status` says which); remove"
            " rerun-triggers from your profile or command line and run snakemake again, or delete these records"
        )


def write_results(path: Path, records: Sequence[Record], **more: Any) -> None:
    """Merges `records`, and `more` JSON values beside them, into the one file at `path`. NaN is refused."""
    merged = {"schema": SCHEMA, "study": records[0].study, **more, "trials": [record.to_json() for record in records]}
    write_text(path, json.dumps(merged, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")


def read_results(path: Path, model: type[AnyRecord]) -> tuple[list[AnyRecord], Mapping[str, Any]]:
    """The records that `write_results` merged, and all that is in the file. Raises UserError for another file."""
    merged = read_json(path)
    if not isinstance(merged, dict) or merged.get("schema") != SCHEMA or not isinstance(merged.get("trials"), list):
        raise UserError(f"{path}: is not a summary's results.json; {REBUILD}")
    return [validated(model, trial, str(path)) for trial in merged["trials"]], merged


def machines(records: Iterable[Record]) -> list[str]:
    """The hardware of each record that reached a device."""
    return [hardware(record.machine, record.device) for record in records if record.device]


def machine_note(names: Iterable[str], compared: str = "speeds") -> str:
    """A sentence for hardware `names`, one a trial, that are not all the same; else nothing.

    compared: what does not compare across them.
    """
    counts = Counter(names)
    if len(counts) < 2:
        return ""
    parts = "; ".join(f"{name}: {count} trial{'s' * (count > 1)}" for name, count in counts.items())
    return f"The trials ran on different machines ({parts}), so their {compared} are not comparable."
