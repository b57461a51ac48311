"""bf16 is off although it would be faster."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, milliseconds, step_times
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def no_reduced_precision(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """A step with and without bf16 autocast, both measured now; a decision made by `auto` is not questioned."""
    if trial.setting("bf16") != "off" or trial.dtype != "float32":
        return None
    steps = step_times(timer, trial, trial.with_switch("bf16", True))
    if steps is None or steps.saved < 0.2:
        return None
    return Finding(
        seconds_lost=steps.saved * trial.compute_seconds,
        evidence="bf16 autocast was off (training.precision: off)",
        counterfactual=f"step in float32: {milliseconds(steps.actual)};"
        f" with bf16 autocast: {milliseconds(steps.alternative)}",
        advice="set training.precision: auto",
    )
