"""More work than cores: our own trials at once, or a load that cannot be named any more."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def cpu_contention(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Time that the trial was ready to run and no core was free, less the share of named neighbours."""
    lost = trial.run_delay_seconds * own_share(trial, machine)
    if lost <= 0 or trial.threads > machine.cores:  # beside more threads than cores, they wait for each other
        return None
    crowd = ""
    if trial.threads_at_once > machine.cores + 0.5:
        crowd = f"; {trial.threads_at_once:.1f} threads of this study's trials ran at once on {machine.cores} cores"
    pressure = "" if trial.pressure_percent is None else f"; CPU pressure {trial.pressure_percent:.0f}% on average"
    steal = f"; the hypervisor takes {machine.steal_share:.0%} now" if machine.steal_share > 0.05 else ""
    return Finding(
        seconds_lost=lost,
        in_compute=lost,
        evidence=f"{trial.run_delay_seconds:.1f} s of {trial.training_seconds:.1f} s ready to run, with no core free"
        + crowd
        + pressure
        + steal,
        advice="run no more trials at once than there are cores (--cores), and nothing else beside them",
    )


def own_share(trial: TrialEvidence, machine: Machine) -> float:
    """Of the trial's waiting for a core, what is not a foreign process's that runs now."""
    foreign = sum(neighbour.cores for neighbour in machine.neighbours) if trial.state == "running" else 0.0
    own = max(0.0, trial.threads_at_once - machine.cores)
    return own / (own + foreign) if foreign > 0 else 1.0
