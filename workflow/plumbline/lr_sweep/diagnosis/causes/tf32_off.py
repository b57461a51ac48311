"""float32 products on a GPU without its TF32 units."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, compare, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def tf32_off(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """A step with TF32 against one without, both measured now; a choice made by `auto` stands."""
    if trial.device == "cpu" or trial.asked("tf32") != "off" or trial.dtype != "float32" or trial.chose("bf16"):
        return None
    steps = compare(probe, trial, trial.with_switch("tf32", True))
    if steps is None or steps.saved < 0.1:
        return None
    return Finding(
        seconds_lost=steps.saved * trial.compute_seconds,
        evidence="TF32 was off (training.tf32: off)",
        counterfactual=f"a step without TF32: {milliseconds(steps.own)}; with it: {milliseconds(steps.other)}",
        advice="set training.tf32: auto",
    )
