"""The machine was suspended while the trial ran."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def suspended(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Growth of BOOTTIME − MONOTONIC: only the former continues while the machine is suspended."""
    lost = sum(interval.suspended for interval in trial.intervals)
    if lost < 1.0:
        return None
    return Finding(
        seconds_lost=lost,
        evidence=f"the boot clock gained {lost:,.1f} s on the monotonic clock, so the machine was suspended",
        advice="keep the machine awake during training (systemd-inhibit, or the power settings)",
    )
