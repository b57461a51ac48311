"""Trained on the CPU although the machine has a GPU."""

from dataclasses import replace

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, milliseconds, step_times
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def wrong_device(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """A step on the CPU and one on the GPU, both measured now."""
    if trial.device != "cpu" or not machine.gpus:
        return None
    steps = step_times(timer, trial, replace(trial, device="cuda"))
    if steps is None or steps.saved < 0.1:
        return None
    return Finding(
        seconds_lost=steps.saved * trial.compute_seconds,
        evidence=f"it ran on the CPU, but there is a {machine.gpus[0].name}",
        counterfactual=f"step on the CPU: {milliseconds(steps.actual)}; on the GPU: {milliseconds(steps.alternative)}",
        advice="set device: auto or cuda, and check that torch was installed with CUDA",
    )
