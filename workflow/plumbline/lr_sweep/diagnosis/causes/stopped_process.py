"""The process was stopped: by a signal, a debugger, a freezer or a pre-empting scheduler."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine

IDLE_SECONDS = 0.5
"""Shortest stop that counts."""


def stopped_process(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Time in which the process neither ran, nor was ready to run, nor waited for data or a disk."""
    if trial.device != "cpu" or trial.uses("compile"):
        return _stopped_now(trial)  # a process that waits for its GPU or its compiler is idle as well
    gaps = [gap.idle for gap in trial.intervals if gap.idle > IDLE_SECONDS and gap.idle > 0.5 * gap.monotonic]
    now = _stopped_now(trial)
    if not gaps:
        return now
    return Finding(
        seconds_lost=sum(gaps) + (now.seconds_lost if now else 0.0),
        in_compute=sum(gaps),
        evidence=f"the process neither ran nor was ready to run {len(gaps)} ×, for up to {max(gaps):.1f} s",
        advice="find out what stops it: job control (SIGSTOP, Ctrl-Z), a debugger, a cgroup freezer",
    )


def _stopped_now(trial: TrialEvidence) -> Finding | None:
    if not trial.is_stopped:
        return None
    return Finding(
        seconds_lost=trial.silent_seconds,
        evidence=f"process {trial.pid} is stopped ({trial.process_status}), silent for {trial.silent_seconds:.0f} s",
        advice=f"kill -CONT {trial.pid}",
    )
