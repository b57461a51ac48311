"""What a cause is: a function from a trial's evidence, this machine and a probe to a finding, or None."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A cause found at work in one trial."""

    seconds_lost: float
    evidence: str
    """What was seen, with its numbers."""
    advice: str
    counterfactual: str | None = None
    """What was measured now, with and without the cause."""
    in_compute: bool = False
    """Whether the seconds lost lie in forward, backward and optimizer, and the replayed step does not have them."""


class Probe(Protocol):
    """Measures now, on this machine."""

    def step_seconds(
        self,
        trial: TrialEvidence,
        *,
        threads: int | None = None,
        dtype: str | None = None,
        batch: int | None = None,
        device: str | None = None,
        switches: Mapping[str, bool] | None = None,
    ) -> float | None:
        """Seconds of one optimizer step of the trial's model, with what is named in place of the trial's own.

        None: cannot be measured here within the time there is.
        """


Cause = Callable[[TrialEvidence, Machine, Probe], Finding | None]

OVERHEAD_SHARES = {"validation": 0.15, "checkpoint": 0.05, "logging": 0.05, "data_wait": 0.05}
"""Share of the training loop that each span may take before it counts as a loss."""


def overhead(trial: TrialEvidence, span: str) -> float:
    """Seconds of `span` beyond the share it may take; 0 below it."""
    return max(0.0, trial.spans.get(span, 0.0) - OVERHEAD_SHARES[span] * trial.training_seconds)


def milliseconds(seconds: float) -> str:
    """`31 ms`, `0.52 ms`."""
    return f"{1e3 * seconds:,.0f} ms" if seconds >= 0.01 else f"{1e3 * seconds:.2g} ms"


def names() -> list[str]:
    """The causes of this folder, sorted, found by their files."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if file.stem not in ("__init__", "interface"))


def load(name: str) -> Cause:
    """The cause `name` of this folder."""
    cause: Cause = getattr(importlib.import_module(f"{__package__}.{name}"), name)
    return cause
