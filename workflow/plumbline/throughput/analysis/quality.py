"""What spoils a trial's speed, so that no verdict may rest on it. Light to import."""

from collections.abc import Sequence
from typing import Any

from plumbline.throughput.analysis.records import NOISE

WIDE = 3.0
"""An interval that is so many times wider than the precision asked for did not nearly converge."""
PRESSURE_PERCENT = 20.0
"""Share of the ten seconds before a trial in which some process waited for a CPU: above it the machine was busy."""
DISTURBANCES = {
    "busy": "the machine was busy",
    "slowed": "the machine was not at full pace",
    "unsteady": "warm-up had not become steady",
    "drifted": "the speed drifted",
    "wide": "the batches scattered widely",
}
"""What spoils a trial's speed, and the words that follow `measured while`."""


def disturbances(record: dict[str, Any]) -> list[str]:
    """What of DISTURBANCES spoils the trial's speed, from what its record says of the machine and of its batches."""
    precision = ((record.get("spec") or {}).get("timing") or {}).get("precision") or NOISE
    found = {
        "busy": (record["machine"].get("cpu_pressure_some_avg10_percent") or 0.0) > PRESSURE_PERCENT,
        "slowed": record.get("slowed") is True or record.get("latency_slowed") is True,
        "unsteady": record.get("warmup_steady") is False,
        "drifted": record.get("drifted") is True,
        "wide": (record.get("interval_share") or 0.0) > WIDE * precision,
    }
    return [name for name in DISTURBANCES if found[name]]


def disturbance_text(names: Sequence[str]) -> str:
    """Disturbances after the words `measured while`: `the machine was busy and the speed drifted`."""
    words = [text for name, text in DISTURBANCES.items() if name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
