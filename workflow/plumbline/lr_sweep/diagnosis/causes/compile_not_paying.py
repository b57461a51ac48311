"""torch.compile costs more than it saves: a run too short for it, graph breaks, recompilations."""

from statistics import median

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def compile_not_paying(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """What compiling took, less what the compiled steps save against an eager one that is measured now.

    Of a running trial the steps to come count as well.
    """
    eager = probe.step_seconds(trial) if trial.chose("compile") else None
    if eager is None:
        return None
    steady = [gap for gap in trial.intervals if gap.steps > 0]
    step = median(gap.step_seconds for gap in steady) if steady else eager
    again = 0.0
    if trial.compiler.get("recompilations"):  # then what steps took beyond the usual one went into it
        again = sum(max(0.0, gap.step_seconds - step) * gap.steps for gap in steady)
    compiling = trial.spans.get("compile", 0.0) + again
    steps = trial.total if trial.state == "running" else trial.done
    saved = steps * (eager - step)
    if compiling <= saved:
        return None
    counts = [f"; {count} {name.replace('_', ' ')}" for name, count in trial.compiler.items() if count]
    return Finding(
        seconds_lost=compiling - saved,
        in_compute=again + max(0.0, trial.done * (step - eager)),
        evidence=f"compiling took {compiling:.1f} s; what {steps} steps save by it: {saved:.1f} s" + "".join(counts),
        counterfactual=f"an eager step: {milliseconds(eager)}; a compiled one: {milliseconds(step)}",
        advice="set training.compile: auto, or off for runs this short",
    )
