"""The machine slept while the trial ran."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def suspended(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Growth of BOOTTIME − MONOTONIC: the first runs on while the machine is suspended, the second does not."""
    lost = sum(interval.suspended for interval in trial.intervals)
    if lost < 1.0:
        return None
    return Finding(
        seconds_lost=lost,
        evidence=f"the boot clock ran {lost:,.1f} s ahead of the monotonic clock: the machine was suspended",
        advice="keep the machine awake while it trains (systemd-inhibit, or its power settings)",
    )
