"""torch.compile costs more than it saves: a run that is too short, graph breaks, recompilations."""

from statistics import median

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def compile_not_paying(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Compile time minus what the compiled steps save over an eager step measured now.

    For a running trial, the remaining steps count as well.
    """
    eager = timer.step_seconds(trial) if trial.uses("compile") else None
    if eager is None:
        return None
    steady = [gap for gap in trial.intervals if gap.steps > 0]
    step = median(gap.step_seconds for gap in steady) if steady else eager
    recompiling = 0.0
    if trial.compiler.get("recompilations"):  # then the extra time of slow steps went into recompiling
        recompiling = sum(max(0.0, gap.step_seconds - step) * gap.steps for gap in steady)
    compiling = trial.spans.get("compile", 0.0) + recompiling
    steps = trial.total if trial.state == "running" else trial.done
    saved = steps * (eager - step)
    if compiling <= saved:
        return None
    counts = [f"; {count} {name.replace('_', ' ')}" for name, count in trial.compiler.items() if count]
    return Finding(
        seconds_lost=compiling - saved,
        in_compute=recompiling + max(0.0, trial.done * (step - eager)),
        evidence=f"compiling took {compiling:.1f} s and saves {saved:.1f} s over {steps} steps" + "".join(counts),
        counterfactual=f"eager step: {milliseconds(eager)}; compiled step: {milliseconds(step)}",
        advice="set training.compile: auto, or off for runs this short",
    )
