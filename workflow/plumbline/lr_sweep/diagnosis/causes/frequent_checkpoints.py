"""Checkpoints take more of the time than they are worth."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def frequent_checkpoints(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Time in the span checkpoint beyond the share it may take."""
    return overhead(
        trial, "checkpoint", "raise operation.checkpoint_seconds or operation.checkpoint_steps, or use a faster disk"
    )
