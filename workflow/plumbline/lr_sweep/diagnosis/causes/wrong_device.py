"""Trained on the CPU though the machine has a GPU."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def wrong_device(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """A step on the CPU against one on the GPU, both measured now."""
    if trial.device != "cpu" or not machine.gpus:
        return None
    slow, fast = probe.step_seconds(trial), probe.step_seconds(trial, device="cuda")
    if slow is None or fast is None or fast > 0.9 * slow:
        return None
    return Finding(
        seconds_lost=trial.compute_seconds * (1 - fast / slow),
        evidence=f"it ran on the CPU; there is a {machine.gpus[0].name}",
        counterfactual=f"a step on the CPU: {milliseconds(slow)}; on the GPU: {milliseconds(fast)}",
        advice="set device: auto or cuda, and see that torch was installed with CUDA",
    )
