"""A process outside this study is busy on the same cores."""

from plumbline.lr_sweep.diagnosis.causes.cpu_contention import study_share
from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def cpu_neighbour(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Share of a running trial's wait for a core that other processes, busy now, account for."""
    lost = trial.run_delay_seconds * (1 - study_share(trial, machine))
    if lost <= 0 or trial.state != "running":
        return None
    named = ", ".join(f"{one.name} (process {one.pid}: {one.cores:.1f} cores)" for one in machine.neighbours[:3])
    return Finding(
        seconds_lost=lost,
        in_compute=lost,
        evidence=f"{trial.run_delay_seconds:.1f} s of {trial.training_seconds:.1f} s ready to run with no core free;"
        f" busy now: {named}",
        advice="end or move the other process, or reserve cores for the trials (taskset, nice)",
    )
