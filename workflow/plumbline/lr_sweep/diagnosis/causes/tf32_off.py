"""TF32 is off on a GPU where it would be faster."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, milliseconds, step_times
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def tf32_off(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """A step with and without TF32, both measured now; a decision made by `auto` is not questioned."""
    if trial.device == "cpu" or trial.setting("tf32") != "off" or trial.dtype != "float32" or trial.uses("bf16"):
        return None
    steps = step_times(timer, trial, trial.with_switch("tf32", True))
    if steps is None or steps.saved < 0.1:
        return None
    return Finding(
        seconds_lost=steps.saved * trial.compute_seconds,
        evidence="TF32 was off (training.tf32: off)",
        counterfactual=f"step without TF32: {milliseconds(steps.actual)}; with it: {milliseconds(steps.alternative)}",
        advice="set training.tf32: auto",
    )
