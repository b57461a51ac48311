"""Logging takes more of the time than it is worth: too often, to a slow disk, or with a wait for the device."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def frequent_logging(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Time in the span logging beyond the share it may take."""
    lost = overhead(trial, "logging")
    if not lost:
        return None
    seconds = trial.spans["logging"]
    return Finding(
        seconds_lost=lost,
        evidence=f"logging took {seconds:.1f} s of {trial.training_seconds:.1f} s"
        f" ({seconds / trial.training_seconds:.0%}), {milliseconds(seconds / max(trial.done, 1))} a step",
        advice="raise operation.log_steps, or put the results on a faster disk",
    )
