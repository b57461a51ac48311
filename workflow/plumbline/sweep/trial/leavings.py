"""What a trial leaves in its folder: the final metrics, and curves where it wrote some."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError

METRICS = "metrics.json"


def read_metrics(folder: Path, metric: str) -> tuple[dict[str, float], dict[str, Any]]:
    """The numbers of metrics.json, and the rest of it. Raises UserError where `metric` is none of the numbers."""
    path = folder / METRICS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: was not written; a trial leaves its final metrics there, as a JSON object") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a JSON object such as {{{metric!r}: 0.9}}")
    numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
    if metric not in numbers:
        found = f"is {values[metric]!r}, not a number" if metric in values else f"is missing; it has {_listed(numbers)}"
        raise UserError(f"{path}: the metric {metric!r} {found}")
    return numbers, {name: value for name, value in values.items() if name not in numbers}


def read_curves(path: Path, step: str) -> dict[str, list[float | None]]:
    """The numeric columns of a file of curves, by step; nothing without a file.

    A trial that resumed may have written a step twice: the last counts. Without a column `step`, lines are numbered.
    A last line that was cut off by a kill is left out. Raises UserError for any other line that cannot be read.
    """
    if not path.exists():
        return {}
    rows: dict[float, dict[str, Any]] = {}
    for number, row in enumerate(_csv(path) if path.suffix == ".csv" else _json_lines(path)):
        rows[float(row[step]) if _is_number(row.get(step)) else float(number)] = row
    names = dict.fromkeys(name for row in rows.values() for name, value in row.items() if _is_number(value))
    steps = sorted(rows)
    columns = {name: [_value(rows[one].get(name)) for one in steps] for name in names if name != step}
    return {"step": list(steps), **columns} if columns else {}


def is_finite(value: float) -> bool:
    """Whether a metric is a number that can be compared."""
    return math.isfinite(value)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    rows = []
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines) - 1:  # without its line end: written when the process was killed
                break
            raise UserError(f"{path}: line {number + 1} is not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number + 1} must be a JSON object")
        rows.append(row)
    return rows


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [{name: _parsed(value) for name, value in row.items() if name} for row in csv.DictReader(stream)]


def _parsed(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(value: Any) -> float | None:
    return float(value) if _is_number(value) else None


def _listed(names: Any) -> str:
    return ", ".join(names) or "no numbers"
