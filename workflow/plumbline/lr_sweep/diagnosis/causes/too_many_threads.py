"""More threads than pay: each small product is cut up, and the threads wait for each other."""

from dataclasses import replace

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine

PAYS = 0.9
"""A step must take less than this share of the trial's to count."""


def too_many_threads(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """The trial's threads against fewer, each measured now."""
    if trial.device != "cpu" or trial.threads < 2:
        return None
    seen = probe.step_seconds(trial)
    fewer = {count: probe.step_seconds(replace(trial, threads=count)) for count in _fewer(trial.threads, machine.cores)}
    measured = {count: seconds for count, seconds in fewer.items() if seconds is not None}
    if seen is None or not measured:
        return None
    best = min(measured, key=lambda count: measured[count])
    now, own = measured[best], trial.compute_seconds / max(trial.done, 1)
    # both must be slow: the probe disturbs a trial that runs, and is disturbed by it, most of all on many threads
    if now > PAYS * own or (now > PAYS * seen and trial.threads <= machine.cores):
        return None
    lost = trial.compute_seconds * (1 - now / own)
    return Finding(
        seconds_lost=lost,
        in_compute=lost,
        evidence=f"{trial.threads} threads on {machine.cores} cores; a step took {milliseconds(own)}",
        counterfactual=f"{best} thread{'s' * (best > 1)}: {milliseconds(now)};"
        f" {trial.threads} threads: {milliseconds(seen)}",
        advice=f"set OMP_NUM_THREADS={best}; two trials side by side use two cores better than one trial does",
    )


def _fewer(threads: int, cores: int) -> list[int]:
    """1 and, where that is fewer than the trial's and not 1, the number of cores."""
    return sorted({1, min(cores, threads - 1)})
