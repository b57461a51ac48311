"""The batch is too small: the time of a step goes into starting operations, not into arithmetic."""

from dataclasses import replace

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine

TIMES = 4
"""How much larger the batch is that is tried."""
GAIN = 1.7
"""Tokens a second must rise this much to count."""
LONG_STEP_SECONDS = 0.2
"""A step this long is not bound by starting its operations."""


def small_batch(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """Tokens a second at the trial's batch against a larger one, both measured now on one thread or the GPU."""
    batch = int(trial.training["batch"])
    alone = replace(trial, threads=1) if trial.device == "cpu" else trial
    small = probe.step_seconds(alone)
    if small is None or small > LONG_STEP_SECONDS:
        return None
    large = probe.step_seconds(alone.with_batch(TIMES * batch))
    if large is None or TIMES * small / large < GAIN:
        return None
    return Finding(
        seconds_lost=trial.compute_seconds * (1 - large / (TIMES * small)),
        evidence=f"a step holds {trial.tokens_per_step:,} tokens",
        counterfactual=f"batch {batch}: {milliseconds(small)} a step; batch {TIMES * batch}: {milliseconds(large)},"
        f" {TIMES * small / large:.1f} × the tokens a second",
        advice="raise training.batch (and lower training.steps), or train several trials at once on this device",
    )
