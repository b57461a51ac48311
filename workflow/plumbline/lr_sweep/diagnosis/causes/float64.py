"""Trained in double precision."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def float64(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Parameters of float64, against a step in float32 measured now."""
    if trial.dtype != "float64":
        return None
    double, single = probe.step_seconds(trial), probe.step_seconds(trial, dtype="float32")
    share = 0.5 if double is None or single is None else max(0.0, 1 - single / double)
    measured = None
    if double is not None and single is not None:
        measured = f"a step in float64: {milliseconds(double)}; in float32: {milliseconds(single)}"
    return Finding(
        seconds_lost=share * trial.compute_seconds,
        evidence="the parameters are float64",
        counterfactual=measured,
        advice="train in float32: look for torch.set_default_dtype, or float64 arrays that became parameters",
    )
