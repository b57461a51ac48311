"""Validation takes too much of the time."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def frequent_validation(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Time in the span validation beyond its allowed share."""
    return overhead(trial, "validation", "raise training.validate_every or lower training.validation_windows")
