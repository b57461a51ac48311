"""The training loop waits for its data."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def data_wait(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Time in the span data_wait beyond the share that a cached token file needs."""
    lost = overhead(trial, "data_wait")
    if not lost:
        return None
    seconds = trial.spans["data_wait"]
    return Finding(
        seconds_lost=lost,
        evidence=f"{seconds:.1f} s of {trial.training_seconds:.1f} s ({seconds / trial.training_seconds:.0%}) went into"
        f" waiting for data, {1e3 * seconds / max(trial.done, 1):.2f} ms a step",
        advice="put the token file on a local disk, or give it memory to stay cached in",
    )
