"""No bf16 where it would pay."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, compare, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def no_reduced_precision(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """A step under bf16 autocast against one without, both measured now; a choice made by `auto` stands."""
    if trial.asked("bf16") != "off" or trial.dtype != "float32":
        return None
    steps = compare(probe, trial, trial.with_switch("bf16", True))
    if steps is None or steps.saved < 0.2:
        return None
    return Finding(
        seconds_lost=steps.saved * trial.compute_seconds,
        evidence="bf16 autocast was off (training.precision: off)",
        counterfactual=f"a step in float32: {milliseconds(steps.own)};"
        f" under bf16 autocast: {milliseconds(steps.other)}",
        advice="set training.precision: auto",
    )
