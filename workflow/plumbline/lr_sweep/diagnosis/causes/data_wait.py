"""The training loop waits for its data."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def data_wait(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Time in the span data_wait beyond its allowed share."""
    return overhead(trial, "data_wait", "put the token files on a local disk, or free memory so that they stay cached")
