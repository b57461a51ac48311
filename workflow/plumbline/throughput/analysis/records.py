"""Trial records and manifests as they were written, checked; and what they are called. Light to import."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.registry import short_name
from plumbline.core.run.record import Outcome, machine_name, read_record
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.settings import BASE

STUDY = "throughput"
PLACE = ("variant", "engine", "batch", "prompt", "generated")
"""Fields of a record that say which trial it is."""
FOUND = ("batches", "tokens_per_second", "interval", "peak_bytes", "weights_bytes", "kv_bytes", "ceiling_share")
"""What a trial with the outcome ok has in its record."""
GIGABYTE = 1e9
NOISE = 0.03
"""Two processes of one trial may differ by this share, so less than that is no difference.

An interval covers the batches of the two processes that were measured; a third would differ from both by more than it
says. This share stands for that, which is why no correction for many trials is made."""
OUTCOME_TEXTS = {
    Outcome.OUT_OF_MEMORY: "OOM",
    Outcome.INVALID_OUTPUT: "invalid",
    Outcome.UNAVAILABLE: "unavailable",
    Outcome.TIMEOUT: "timeout",
}


def read_trial(path: Path) -> dict[str, Any]:
    """The trial's record at `path`. Raises UserError when it is none of this study, or lacks a field."""
    record = read_record(path)
    if record.get("study") != STUDY or record.get("stage") != "measure":
        raise UserError(f"{path}: is not a trial of study {STUDY}; delete it to have it rebuilt")
    needed = {"trial", "outcome", "machine", "model", *PLACE, *(FOUND if record.get("outcome") == Outcome.OK else ())}
    if missing := needed - record.keys():
        raise UserError(f"{path}: the record lacks {', '.join(sorted(missing))}; delete it to have it rebuilt")
    return record


def read_records(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of the study's trials: the base's first, then by falling ratio, engine, batch and lengths.

    The first engine is that of `main_engine` for the order of `paths`, the others follow by name.

    Raises UserError when there is not a record, when a file is none of this study, when one lacks a field, or when two
    record the same trial.
    """
    if not paths:
        raise UserError(f"{STUDY} summary: no record was given; run the trials first (`make run`)")
    records: dict[str, dict[str, Any]] = {}
    for path in paths:
        record = read_trial(path)
        if record["trial"] in records:
            raise UserError(f"{path}: trial {record['trial']} is recorded twice; keep one of the files")
        records[record["trial"]] = record
    main = main_engine([record["engine"] for record in records.values()])
    return sorted(records.values(), key=lambda record: _order(record, main))


def main_engine(engines: Sequence[str]) -> str:
    """The short name of the engine with most trials, given that of every trial; of several, the first of them."""
    return Counter(short_name(engine) for engine in engines).most_common(1)[0][0]


def read_manifests(paths: Sequence[Path]) -> list[Manifest]:
    """The variants' manifests: the base's first, then by falling ratio. Raises UserError for a file that is none."""
    manifests = [read_manifest(path) for path in paths]
    return sorted(manifests, key=lambda manifest: _variant_order(manifest.variant, ratio_of(manifest.model_dump())))


def read_others(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of the stage max_batch, in the order of their names. Raises UserError for a file that is none."""
    return sorted((read_record(path) for path in paths), key=lambda record: str(record["trial"]))


def ratio_of(described: dict[str, Any]) -> float | None:
    """Share of the parameters that a variant keeps, from its record or manifest; of the base it is 1."""
    if described["variant"] == BASE:
        return 1.0
    ratio = described.get("ratio")
    return None if ratio is None else float(ratio)


def outcome_text(outcome: str) -> str:
    """An outcome in short, for figures: `OOM`."""
    return OUTCOME_TEXTS.get(Outcome(outcome), outcome.replace("_", " "))


def cell_text(described: Any) -> str:
    """A trial's place within its variant and engine: `b8-p4-g32`."""
    return f"b{described['batch']}-p{described['prompt']}-g{described['generated']}"


def machine_note(records: Sequence[dict[str, Any]]) -> str:
    """A sentence when the trials ran on different machines, else nothing; those that got to no device do not count."""
    names = [machine_name(record) for record in records if record.get("device")]
    if len(set(names)) < 2:
        return ""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    parts = "; ".join(f"{name}: {count} trial{'s' * (count > 1)}" for name, count in counts.items())
    return f"The trials ran on different machines ({parts}): their speeds are not comparable."


def _order(record: dict[str, Any], main: str) -> tuple[Any, ...]:
    cell = tuple(int(record[name]) for name in ("batch", "prompt", "generated"))
    engine = short_name(record["engine"])
    return (*_variant_order(record["variant"], ratio_of(record)), engine != main, engine, *cell)


def _variant_order(variant: str, ratio: float | None) -> tuple[Any, ...]:
    return variant != BASE, -(0.0 if ratio is None else ratio), variant
