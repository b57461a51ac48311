"""What a cause is: a function from a trial's evidence, this machine and a probe to a finding, or None."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

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
    in_compute: float = 0.0
    """Of the seconds lost, those in forward, backward and optimizer that the replayed step need not have."""


class Probe(Protocol):
    """Measures now, on this machine. None: cannot be measured here within the time there is."""

    def step_seconds(self, trial: TrialEvidence) -> float | None:
        """Seconds of one eager optimizer step, run as the trial runs it; to ask what if, give it a changed trial."""

    def ceiling(self, trial: TrialEvidence) -> float | None:
        """Floating-point operations a second of a large matrix product, run as the trial runs."""


Cause = Callable[[TrialEvidence, Machine, Probe], Finding | None]

OVERHEAD_SHARES = {"validation": 0.15, "checkpoint": 0.05, "logging": 0.05, "data_wait": 0.05}
"""Share of the training loop that each span may take before it counts as a loss."""


def overhead(trial: TrialEvidence, span: str, advice: str) -> Finding | None:
    """The time in `span` beyond the share it may take, as a loss; None below it."""
    seconds, whole, steps = trial.spans.get(span, 0.0), trial.training_seconds, max(trial.done, 1)
    lost = seconds - OVERHEAD_SHARES[span] * whole
    if lost <= 0:
        return None
    return Finding(
        seconds_lost=lost,
        evidence=f"{span} took {seconds:.1f} s of {whole:.1f} s ({seconds / whole:.0%}),"
        f" {milliseconds(seconds / steps)} a step beside {milliseconds(trial.compute_seconds / steps)} of computing",
        advice=advice,
    )


class Comparison(NamedTuple):
    """Seconds of a step as it is, and as it would be otherwise."""

    own: float
    other: float

    @property
    def saved(self) -> float:
        """Share of the step that the other way saves; below 0 where it costs."""
        return 1 - self.other / self.own


def compare(probe: Probe, trial: TrialEvidence, other: TrialEvidence) -> Comparison | None:
    """A step of `trial` against one of `other`, measured now; None when one of them cannot be measured."""
    own, otherwise = probe.step_seconds(trial), probe.step_seconds(other)
    return None if own is None or otherwise is None else Comparison(own, otherwise)


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
