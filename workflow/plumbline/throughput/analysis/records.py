"""Trial records and manifests, read and sorted; and what they are called. Light to import."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.core.run.records import read_records
from plumbline.throughput.grid import main_engine
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.record import ComparisonRecord, MaxBatchRecord, TrialRecord
from plumbline.throughput.settings import BASE

GIGABYTE = 1e9


def read_trials(paths: Sequence[Path]) -> list[TrialRecord]:
    """The records of the study's trials: the base's first, then by falling ratio, engine, batch and lengths.

    The main engine (see `main_engine`) comes first, the others follow by name. Raises UserError as `read_records` does.
    """
    records = read_records(TrialRecord, paths)
    main = main_engine([record.engine for record in records])
    return sorted(records, key=lambda record: _order(record, main))


def read_manifests(paths: Sequence[Path]) -> list[Manifest]:
    """The variants' manifests: the base's first, then by falling ratio. Raises UserError for a file that is not one."""
    manifests = [read_manifest(path) for path in paths]
    return sorted(manifests, key=lambda each: _variant_order(each.variant, each.ratio))


def read_comparisons(paths: Sequence[Path]) -> list[ComparisonRecord]:
    """The records of the stage comparison by question and cell. Raises UserError for a file that is not one."""
    found = (ComparisonRecord.read(path) for path in paths)
    return sorted(found, key=lambda each: (each.question, each.batch, each.prompt, each.generated, each.trial))


def read_max_batches(paths: Sequence[Path]) -> list[MaxBatchRecord]:
    """The records of the stage max_batch by name. Raises UserError for a file that is not one."""
    return sorted((MaxBatchRecord.read(path) for path in paths), key=lambda record: record.trial)


def cell_text(row: Any) -> str:
    """A trial's place within its variant and engine: `b8-p4-g32`."""
    return f"b{row['batch']}-p{row['prompt']}-g{row['generated']}"


def _order(record: TrialRecord, main: str) -> tuple[Any, ...]:
    engine, cell = record.engine_name, (record.batch, record.prompt, record.generated)
    return (*_variant_order(record.variant, record.ratio), engine != main, engine, *cell)


def _variant_order(variant: str, ratio: float | None) -> tuple[Any, ...]:
    return variant != BASE, -(0.0 if ratio is None else ratio), variant
