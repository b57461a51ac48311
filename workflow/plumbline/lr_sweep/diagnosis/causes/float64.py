"""Trained in double precision."""

from dataclasses import replace

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, compare, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine

ASSUMED_SHARE = 0.5
"""Of a step's time lost where it cannot be measured: every number takes twice the room."""


def float64(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Parameters of float64, against a step in float32 measured now."""
    if trial.dtype != "float64":
        return None
    steps = compare(probe, trial, replace(trial, dtype="float32"))
    if steps is None:
        share, measured = ASSUMED_SHARE, None
    else:
        share = steps.saved
        measured = f"a step in float64: {milliseconds(steps.own)}; in float32: {milliseconds(steps.other)}"
    return Finding(
        seconds_lost=share * trial.compute_seconds,
        evidence="the parameters are float64" + ("" if measured else "; not measured here: half is taken as lost"),
        counterfactual=measured,
        advice="train in float32: look for torch.set_default_dtype, or float64 arrays that became parameters",
    )
