"""What a trial leaves in its folder: the final metrics, and curves where it wrote some."""

import csv
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError

log = logging.getLogger("plumbline")

METRICS = "metrics.json"


def read_metrics(folder: Path, metrics: Sequence[str]) -> tuple[dict[str, float], dict[str, Any]]:
    """The numbers of metrics.json, and the rest of it. Raises UserError where one of `metrics` is none of these."""
    path = folder / METRICS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: was not written; a trial leaves its final metrics there, as a JSON object") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a JSON object such as {{{metrics[0]!r}: 0.9}}")
    numbers = {name: found for name, value in values.items() if (found := _number(value)) is not None}
    for metric in (name for name in metrics if name not in numbers):
        said = f"is {values[metric]!r}, not a number" if metric in values else f"is missing; it has {_listed(numbers)}"
        raise UserError(f"{path}: the metric {metric!r} {said}")
    return numbers, {name: value for name, value in values.items() if name not in numbers}


def read_curves(path: Path, step: str) -> dict[str, list[float | None]]:
    """The numeric columns of a file of curves, by step; nothing without a file.

    Of a value that was written twice for a step, as a trial that resumed may do, the last counts. Where no line has a
    `step`, lines are numbered; where some have, the others are left out. Lines that a kill has cut off cannot be read:
    they are left out too, and the log says how many. Raises UserError for a file that cannot be read at all.
    """
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    lines = _csv(text) if path.suffix == ".csv" else _json_lines(text)
    if bad := sum(row is None for row in lines):
        log.warning("%s: %d lines cannot be read and are left out", path, bad)
    read = [row for row in lines if row is not None]
    has_steps = any(_number(row.get(step)) is not None for row in read)
    rows: dict[float, dict[str, Any]] = {}
    for number, row in enumerate(read):
        place = _number(row.get(step)) if has_steps else float(number)
        if place is not None:
            rows.setdefault(place, {}).update(row)
    names = dict.fromkeys(name for row in rows.values() for name, value in row.items() if _number(value) is not None)
    steps = sorted(rows)
    columns = {name: [_number(rows[one].get(name)) for one in steps] for name in names if name not in (step, "step")}
    return {"step": list(steps), **columns} if columns else {}


def is_finite(value: float) -> bool:
    """Whether a metric is a number that can be compared."""
    return math.isfinite(value)


def _json_lines(text: str) -> list[dict[str, Any] | None]:
    """An object a line; None for a line that is none."""
    rows: list[dict[str, Any] | None] = []
    for line in text.splitlines():
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            rows.append(row if isinstance(row, dict) else None)
    return rows


def _csv(text: str) -> list[dict[str, Any] | None]:
    """A row a line, with numbers as such; None for one with more or fewer fields than the header, which may recur."""
    lines = [line for line in csv.reader(text.splitlines()) if line]
    header = lines[0] if lines else []
    return [
        {name: _parsed(value) for name, value in zip(header, line, strict=True)} if len(line) == len(header) else None
        for line in lines
        if line != header
    ]


def _parsed(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _number(value: Any) -> float | None:
    """The value as a float; None for what is no number, or too large for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _listed(names: Any) -> str:
    return ", ".join(names) or "no numbers"
