"""A trial's record as JSON values: what `TrialRecord.to_json` gives, without pydantic, whose import takes 0.09 s.

A test holds the two equal, for every way in which a trial ends.
"""

import math
from typing import Any

from plumbline.core.run.outcome import SCHEMA

HEAD = {"schema": SCHEMA, "study": "sweep", "stage": "run"}
ATTEMPT = ("trial", "outcome", "message", "started", "seconds", "spec", "machine")
FOUND = ("sweep", "point", "parameters", "seed")
LEFT = ("metrics", "info", "curves")
"""Fields that only a trial has which came to its end."""


def record_json(values: dict[str, Any]) -> dict[str, Any]:
    """`values` as they stand in a record's file, in its order. Raises ValueError for a field that is not known."""
    if unknown := values.keys() - {*ATTEMPT, *FOUND, *LEFT}:
        raise ValueError(f"a record of a trial has no {', '.join(sorted(unknown))}")
    left = {name: values.get(name, {}) for name in LEFT}
    metrics = {name: _in_json(value) for name, value in left["metrics"].items()}
    curves = {name: [_in_json(value) for value in column] for name, column in left["curves"].items()}
    attempt = {name: values[name] for name in ATTEMPT}
    found = {name: values[name] for name in FOUND}
    left |= {"metrics": metrics, "info": _finite(left["info"]), "curves": curves}
    return {**HEAD, **attempt, "device": None, **found, **left}


def _in_json(value: float | None) -> float | str | None:
    """JSON holds NaN and infinities as the strings `nan`, `inf` and `-inf`."""
    return value if value is None or math.isfinite(value) else str(value)


def _finite(value: Any) -> Any:
    """A JSON value with null for each NaN or infinity in it, for which JSON has no word."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
