"""A cause is a function from a trial's evidence, this machine and a step timer to a finding, or None."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A cause that slowed down one trial."""

    seconds_lost: float
    evidence: str
    """What was observed, with its numbers."""
    advice: str
    counterfactual: str | None = None
    """A measurement made now, with and without the cause."""
    in_compute: float = 0.0
    """The part of the lost seconds that was spent in forward, backward and optimizer, beyond the replayed step."""


class StepTimer(Protocol):
    """Measures steps now, on this machine; None when that is not possible here or within the time budget."""

    def step_seconds(self, trial: TrialEvidence) -> float | None:
        """Seconds of one eager step with the trial's settings. For a counterfactual, pass a modified trial."""

    def ceiling(self, trial: TrialEvidence) -> float | None:
        """Floating-point operations per second of a large matrix product with the trial's settings."""


Cause = Callable[[TrialEvidence, Machine, StepTimer], Finding | None]

OVERHEAD_SHARES = {"validation": 0.15, "checkpoint": 0.05, "logging": 0.05, "data_wait": 0.05}
"""Share of the training loop that each span may take before it counts as lost time."""


def overhead(trial: TrialEvidence, span: str, advice: str) -> Finding | None:
    """A finding for the time in `span` beyond its allowed share; None below that."""
    seconds, whole, steps = trial.spans.get(span, 0.0), trial.training_seconds, max(trial.done, 1)
    lost = seconds - OVERHEAD_SHARES[span] * whole
    if lost <= 0:
        return None
    return Finding(
        seconds_lost=lost,
        evidence=f"{span} took {seconds:.1f} s of {whole:.1f} s ({seconds / whole:.0%}),"
        f" {milliseconds(seconds / steps)} per step next to {milliseconds(trial.compute_seconds / steps)} of compute",
        advice=advice,
    )


class StepTimes(NamedTuple):
    """Seconds of a step of the trial, and of the alternative."""

    actual: float
    alternative: float

    @property
    def saved(self) -> float:
        """Share of the step that the alternative saves; negative when it is slower."""
        return 1 - self.alternative / self.actual


def step_times(timer: StepTimer, trial: TrialEvidence, alternative: TrialEvidence) -> StepTimes | None:
    """A step of `trial` and one of `alternative`, measured now; None when either cannot be measured."""
    actual, other = timer.step_seconds(trial), timer.step_seconds(alternative)
    return None if actual is None or other is None else StepTimes(actual, other)


def milliseconds(seconds: float) -> str:
    """`31 ms`, `0.52 ms`."""
    return f"{1e3 * seconds:,.0f} ms" if seconds >= 0.01 else f"{1e3 * seconds:.2g} ms"


def names() -> list[str]:
    """The causes in this folder, sorted: one per file."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if file.stem not in ("__init__", "interface"))


def load(name: str) -> Cause:
    """The cause `name`."""
    cause: Cause = getattr(importlib.import_module(f"{__package__}.{name}"), name)
    return cause
