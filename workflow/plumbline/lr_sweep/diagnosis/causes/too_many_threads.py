"""Too many threads: each small matrix product is split up, and the threads wait for each other."""

from dataclasses import replace

from plumbline.core.present.formatting import plural
from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine

FASTER_SHARE = 0.9
"""With fewer threads a step must take less than this share of the trial's to count."""


def too_many_threads(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """A step with the trial's threads and with fewer, measured now."""
    if trial.device != "cpu" or trial.threads < 2:
        return None
    replayed = timer.step_seconds(trial)
    fewer = {count: timer.step_seconds(replace(trial, threads=count)) for count in _fewer(trial.threads, machine.cores)}
    measured = {count: seconds for count, seconds in fewer.items() if seconds is not None}
    if replayed is None or not measured:
        return None
    best = min(measured, key=lambda count: measured[count])
    now, actual = measured[best], trial.compute_seconds / max(trial.done, 1)
    # both must be slow: the replay and a running trial slow each other down, most of all with many threads
    if now > FASTER_SHARE * actual or (now > FASTER_SHARE * replayed and trial.threads <= machine.cores):
        return None
    lost = trial.compute_seconds * (1 - now / actual)
    return Finding(
        seconds_lost=lost,
        in_compute=lost,
        evidence=f"{trial.threads} threads on {machine.cores} cores; a step took {milliseconds(actual)}",
        counterfactual=f"{plural(best, 'thread')}: {milliseconds(now)};"
        f" {trial.threads} threads: {milliseconds(replayed)}",
        advice=f"set OMP_NUM_THREADS={best}; two trials at once use two cores better than one trial with two threads",
    )


def _fewer(threads: int, cores: int) -> list[int]:
    """Thread counts to try: 1, and the number of cores or one less than the trial's."""
    return sorted({1, min(cores, threads - 1)})
