"""More threads than cores: too many trials at once, or a load that is gone by now."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def cpu_contention(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Time in which the trial was ready to run and no core was free, minus the share of known neighbours."""
    lost = trial.run_delay_seconds * study_share(trial, machine)
    if lost <= 0 or trial.threads > machine.cores:  # a trial with more threads than cores waits for itself
        return None
    crowd = ""
    if trial.threads_at_once > machine.cores + 0.5:
        crowd = f"; {trial.threads_at_once:.1f} threads of this study's trials ran at once on {machine.cores} cores"
    pressure = "" if trial.pressure_percent is None else f"; CPU pressure {trial.pressure_percent:.0f}% on average"
    steal = f"; the hypervisor steals {machine.steal_share:.0%} now" if machine.steal_share > 0.05 else ""
    return Finding(
        seconds_lost=lost,
        in_compute=lost,
        evidence=f"{trial.run_delay_seconds:.1f} s of {trial.training_seconds:.1f} s ready to run with no core free"
        + crowd
        + pressure
        + steal,
        advice="run at most as many trials at once as there are cores (--cores), and nothing else at the same time",
    )


def study_share(trial: TrialEvidence, machine: Machine) -> float:
    """Share of the time waiting for a core that is caused by this study's trials, not by other processes busy now."""
    foreign = sum(neighbour.cores for neighbour in machine.neighbours) if trial.state == "running" else 0.0
    excess = max(0.0, trial.threads_at_once - machine.cores)
    return excess / (excess + foreign) if foreign > 0 else 1.0
