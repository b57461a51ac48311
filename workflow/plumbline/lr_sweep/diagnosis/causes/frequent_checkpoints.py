"""Checkpoints take too much of the time."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def frequent_checkpoints(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Time in the span checkpoint beyond its allowed share."""
    return overhead(
        trial, "checkpoint", "raise operation.checkpoint_seconds or operation.checkpoint_steps, or use a faster disk"
    )
