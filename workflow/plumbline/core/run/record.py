"""Records: what a trial found, with its spec and the machine it ran on."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_json
from plumbline.core.measure.machine import describe_machine
from plumbline.core.plan.target import Spec, canonical, digest

SCHEMA = 1


class Outcome(StrEnum):
    """What a trial found. A crash is not an outcome: it leaves no record."""

    OK = "ok"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    INVALID_OUTPUT = "invalid_output"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"


class OutcomeError(Exception):
    """Raised inside `recording` when a trial found something other than `ok`."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


@contextmanager
def recording(path: Path, *, study: str, stage: str, trial: str, spec: Spec) -> Iterator[dict[str, Any]]:
    """A dict to put a trial's findings in; written to `path` as its record when the block ends.

    `seconds` in it is the time of this attempt alone; the journal knows those before it (`progress.lost_seconds`).
    OutcomeError and MemoryError end the block with their outcome in the record; every other error leaves no record.
    """
    began, started = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    machine = describe_machine()
    findings: dict[str, Any] = {}
    outcome, message = Outcome.OK, None
    try:
        yield findings
    except OutcomeError as found:
        outcome, message = found.outcome, str(found)
    except MemoryError as error:
        outcome, message = Outcome.OUT_OF_MEMORY, str(error)
    head = {"schema": SCHEMA, "study": study, "stage": stage, "trial": trial}
    head |= {"outcome": outcome.value, "message": message, "started": started}
    head |= {"seconds": time.perf_counter() - began, "spec": spec.model_dump(mode="json"), "machine": machine}
    write_json(path, head | findings)


def read_record(path: Path) -> dict[str, Any]:
    """The record at `path`. Raises UserError when it is none, or of an unknown schema."""
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UserError(f"{path}: is no record of schema {SCHEMA}; delete it to have its trial run again")
    return record


def check_specs(records: Iterable[Mapping[str, Any]], expected: Mapping[str, str]) -> None:
    """Raises UserError naming the first records that were not made from the plan's specs.

    expected: trial -> digest of its spec, from `recorded`. Snakemake reruns such trials by itself, unless a profile
    tells it to go by file times alone.
    """
    stale = [
        record["trial"] for record in records if expected.get(record["trial"]) != digest(canonical(record.get("spec")))
    ]
    if stale:
        names = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
        raise UserError(
            f"{names}: recorded with settings or code other than today's (`plumbline status` says which); run snakemake"
            " without --rerun-triggers, or delete these records"
        )


def machine_name(record: dict[str, Any]) -> str:
    """The hardware that decides a record's speed: the CPU and its cores, and the accelerator where one was used."""
    machine, device = record["machine"], record.get("device") or "cpu"
    cpu = machine.get("cpu_model") or "unknown CPU"
    if cores := machine.get("cores"):
        cpu = f"{cpu}, {cores} cores"
    return cpu if device == "cpu" else f"{cpu} + {device}"
