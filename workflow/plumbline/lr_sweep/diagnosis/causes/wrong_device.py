"""Trained on the CPU though the machine has a GPU."""

from dataclasses import replace

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, compare, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def wrong_device(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """A step on the CPU against one on the GPU, both measured now."""
    if trial.device != "cpu" or not machine.gpus:
        return None
    steps = compare(probe, trial, replace(trial, device="cuda"))
    if steps is None or steps.saved < 0.1:
        return None
    return Finding(
        seconds_lost=steps.saved * trial.compute_seconds,
        evidence=f"it ran on the CPU; there is a {machine.gpus[0].name}",
        counterfactual=f"a step on the CPU: {milliseconds(steps.own)}; on the GPU: {milliseconds(steps.other)}",
        advice="set device: auto or cuda, and see that torch was installed with CUDA",
    )
