"""What a point is called, in paths and in sentences."""

import hashlib
import re
from collections.abc import Mapping

from plumbline.core.plan.canonical import canonical
from plumbline.sweep.trial.command import Value, plain

LONGEST_NAME = 100
SEPARATOR = "__"
"""Between the parameters of a point in paths. Snakemake splits what it hands to a cluster's jobs at commas."""


def point_name(point: dict[str, Value]) -> str:
    """A point in paths: `learning_rate=0.001__width=32`; what cannot stand in one is left out and a digest added.

    Parameters stand in the order of the alphabet, so that another order in the config renames nothing.
    """
    text = SEPARATOR.join(f"{name}={plain(value)}" for name, value in sorted(point.items()))
    certain = not any(isinstance(value, str) and _is_ambiguous(value) for value in point.values())
    if certain and len(text) <= LONGEST_NAME and re.fullmatch(r"[A-Za-z0-9_=.+-]+", text):
        return text
    digits = hashlib.sha256(canonical(point).encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_=.+-]+", "_", text)[:LONGEST_NAME] + f"~{digits}"


def folder_name(point: dict[str, Value], budget: str | None) -> str:
    """The point whose folder a trial runs in: the point without its budget, so that a larger one goes on in it."""
    return point_name({name: value for name, value in point.items() if name != budget})


def point_label(point: Mapping[str, Value]) -> str:
    """A point in sentences, tables and figures: `learning_rate=0.001, width=32`, on one line and not too long."""
    text = " ".join(", ".join(f"{name}={plain(value)}" for name, value in point.items()).split())
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def _is_ambiguous(text: str) -> bool:
    """Whether text could be taken for another type's value or for two values, so that two points would share a name."""
    typed = text in ("true", "false") or re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?", text) is not None
    return typed or "_" in text or "=" in text
