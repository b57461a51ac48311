"""The batch is too small: a step spends its time launching operations instead of computing."""

from dataclasses import replace

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine

TIMES = 4
"""The batch is compared with one this many times larger."""
GAIN = 1.7
"""Tokens per second must rise by this factor to count."""
LONG_STEP_SECONDS = 0.2
"""A step this long is not bound by launch overhead."""


def small_batch(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Tokens per second at the trial's batch and at a larger one, both measured now, on one thread or the GPU."""
    batch = trial.training.batch
    single = replace(trial, threads=1) if trial.device == "cpu" else trial
    small = timer.step_seconds(single)
    if small is None or small > LONG_STEP_SECONDS:
        return None
    large = timer.step_seconds(single.with_batch(TIMES * batch))
    if large is None or TIMES * small / large < GAIN:
        return None
    return Finding(
        seconds_lost=trial.compute_seconds * (1 - large / (TIMES * small)),
        evidence=f"a step has only {trial.tokens_per_step:,} tokens",
        counterfactual=f"batch {batch}: {milliseconds(small)} per step; batch {TIMES * batch}: {milliseconds(large)},"
        f" {TIMES * small / large:.1f} × the tokens per second",
        advice="raise training.batch (and lower training.steps), or train several trials at once on this device",
    )
