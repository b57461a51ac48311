"""Logging takes more of the time than it is worth: too often, to a slow disk, or with a wait for the device."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def frequent_logging(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Time in the span logging beyond the share it may take."""
    return overhead(trial, "logging", "raise operation.log_steps, or put the results on a faster disk")
