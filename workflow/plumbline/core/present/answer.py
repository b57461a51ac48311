"""What a study's command returns, for the command line to print."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.table import Table


@dataclass(frozen=True)
class Answer:
    """An answer to print: as `values` with --json, else as `lines`."""

    values: dict[str, Any]
    lines: Sequence[str | Table]
    status: int
    """Exit status: 0 good, 1 bad, 2 inconclusive."""


class Row(NamedTuple):
    """What `plumbline show` says of a trial, or of a part of it."""

    keys: dict[str, Any]
    """What tells it from other rows: always shown."""
    found: dict[str, Any]
    """The answer to the study's question, what matters most first: the last ones go where a terminal is narrow."""
    more: dict[str, Any] = {}
    """Shown when asked for."""
