"""float32 products on a GPU without its TF32 units."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def tf32_off(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """A step with TF32 against one without, both measured now."""
    if trial.device == "cpu" or trial.dtype != "float32" or trial.chose("tf32") or trial.chose("bf16"):
        return None
    without = probe.step_seconds(trial, switches={"tf32": False})
    with_it = probe.step_seconds(trial, switches={"tf32": True})
    if without is None or with_it is None or with_it > 0.9 * without:
        return None
    return Finding(
        seconds_lost=trial.compute_seconds * (1 - with_it / without),
        evidence="TF32 was off",
        counterfactual=f"a step without TF32: {milliseconds(without)}; with it: {milliseconds(with_it)}",
        advice="set training.tf32: auto",
    )
