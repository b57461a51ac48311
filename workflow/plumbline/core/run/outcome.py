"""What a trial found, and the block that writes it down. Light: a stage of the study `sweep` starts with no more."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from plumbline.core.files import write_json
from plumbline.core.measure.machine import describe_machine

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
def recording_as(
    to_json: Callable[[dict[str, Any]], dict[str, Any]], path: Path, *, trial: str, spec: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """A dict to put a trial's findings in; written to `path`, as `to_json` makes a record of it, when the block ends.

    OutcomeError and MemoryError end the block with their outcome in the record; every other error leaves no record,
    and neither does one of `to_json`, which refuses findings that the record does not know.
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
    head: dict[str, Any] = {"trial": trial, "outcome": outcome, "message": message, "started": started}
    head |= {"seconds": time.perf_counter() - began, "spec": spec, "machine": machine}
    write_json(path, to_json(head | findings))
