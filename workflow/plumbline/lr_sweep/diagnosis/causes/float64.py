"""Trained in double precision."""

from dataclasses import replace

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, milliseconds, step_times
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine

ASSUMED_SHARE = 0.5
"""Share of the step that counts as lost when it cannot be measured: every number takes twice the memory."""


def float64(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """The trial's step in float64 against one in float32, both measured now."""
    if trial.dtype != "float64":
        return None
    steps = step_times(timer, trial, replace(trial, dtype="float32"))
    if steps is None:
        share, measured = ASSUMED_SHARE, None
    else:
        share = steps.saved
        measured = f"step in float64: {milliseconds(steps.actual)}; in float32: {milliseconds(steps.alternative)}"
    return Finding(
        seconds_lost=share * trial.compute_seconds,
        evidence="the parameters are float64" + ("" if measured else "; not measured here: half is assumed lost"),
        counterfactual=measured,
        advice="train in float32: look for torch.set_default_dtype or parameters created from float64 arrays",
    )
