"""No bf16 where it would pay."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def no_reduced_precision(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """A step under bf16 autocast against one without, both measured now; a choice made by `auto` stands."""
    asked = trial.training.get("precision")
    if trial.chose("bf16") or asked != "off" or trial.dtype != "float32":
        return None
    without = probe.step_seconds(trial, switches={"bf16": False})
    with_it = probe.step_seconds(trial, switches={"bf16": True})
    if without is None or with_it is None or with_it > 0.8 * without:
        return None
    return Finding(
        seconds_lost=trial.compute_seconds * (1 - with_it / without),
        evidence="bf16 autocast was off (training.precision: off)",
        counterfactual=f"a step in float32: {milliseconds(without)}; under bf16 autocast: {milliseconds(with_it)}",
        advice="set training.precision: auto",
    )
