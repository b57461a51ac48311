"""Logging takes too much of the time: too often, to a slow disk, or waiting for the device."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def frequent_logging(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Time in the span logging beyond its allowed share."""
    return overhead(trial, "logging", "raise operation.log_steps, or put the results on a faster disk")
