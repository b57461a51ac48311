"""Validation takes more of the time than it is worth."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def frequent_validation(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Time in the span validation beyond the share it may take."""
    return overhead(trial, "validation", "raise training.validate_every or lower training.validation_windows")
