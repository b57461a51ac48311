"""The training loop waits for its data."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def data_wait(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Time in the span data_wait beyond the share that a cached token file needs."""
    return overhead(trial, "data_wait", "put the token file on a local disk, or give it memory to stay cached in")
