"""Checkpoints take more of the time than they are worth."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds, overhead
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def frequent_checkpoints(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Time in the span checkpoint beyond the share it may take."""
    lost = overhead(trial, "checkpoint")
    if not lost:
        return None
    seconds = trial.spans["checkpoint"]
    return Finding(
        seconds_lost=lost,
        evidence=f"checkpoint took {seconds:.1f} s of {trial.training_seconds:.1f} s"
        f" ({seconds / trial.training_seconds:.0%}), {milliseconds(seconds / max(trial.done, 1))} a step beside"
        f" {milliseconds(trial.compute_seconds / max(trial.done, 1))} of training",
        advice="raise operation.checkpoint_seconds or operation.checkpoint_steps, or use a faster disk",
    )
