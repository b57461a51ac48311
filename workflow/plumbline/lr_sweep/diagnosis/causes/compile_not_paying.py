"""torch.compile costs more than it saves: a run too short for it, graph breaks, recompilations."""

from statistics import median

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def compile_not_paying(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """What compiling took, less what the compiled steps save against an eager one that is measured now."""
    eager = probe.step_seconds(trial, switches={"compile": False}) if trial.chose("compile") else None
    if eager is None or not trial.done:
        return None
    # the fastest intervals: a recompilation in one of the others is a cost of compiling too
    steady = [gap.compute / gap.steps for gap in trial.intervals if gap.steps > 0]
    step = min(median(steady), eager) if steady else eager
    compiling = max(0.0, trial.compute_seconds - trial.done * step)
    saved = trial.done * (eager - step)
    if compiling <= saved:
        return None
    graph = ", ".join(
        f"{trial.precision[key]} {key.replace('_', ' ')}"
        for key in ("graph_breaks", "recompiles")
        if trial.precision.get(key)
    )
    return Finding(
        seconds_lost=compiling - saved,
        evidence=f"compiling took {compiling:.1f} s in {trial.done} steps and saved {saved:.1f} s"
        + (f"; {graph}" if graph else ""),
        counterfactual=f"an eager step: {milliseconds(eager)}; a compiled one: {milliseconds(step)}",
        advice="set training.compile: auto, or off for runs this short",
        in_compute=True,
    )
