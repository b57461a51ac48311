"""What a command of a study has to say, for the command line to print."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Answer:
    """An answer to print: as `values` with --json, else as `lines`."""

    values: dict[str, Any]
    lines: Sequence[str | Table]
    status: int
    """Exit status: 0 good, 1 bad, 2 inconclusive."""
