"""Diagnoses the trials in a study folder, and puts a diagnosis into words."""

from collections.abc import Sequence
from pathlib import Path

from plumbline.core.present.formatting import plural
from plumbline.lr_sweep.diagnosis.assessment import assess, is_assessable
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence, read_trials
from plumbline.lr_sweep.diagnosis.machine import observe
from plumbline.lr_sweep.diagnosis.verdict import Diagnosis, Expectation, RankedCause, SweepProgress

BUDGET_SECONDS = 18.0
"""For measurements; with imports and a measurement that overruns, a diagnosis stays below 30 s."""


def diagnose_study(study: Path, names: Sequence[str] | None = None) -> Diagnosis:
    """The diagnosis of the trials `names` (None: all with a record or a journal) below `study`. Changes nothing.

    torch is imported only once a trial has trained long enough to be measured against.
    """
    return diagnose_trials(read_trials(study, names))


def diagnose_trials(trials: Sequence[TrialEvidence]) -> Diagnosis:
    """The diagnosis of the given evidence."""
    machine = observe([trial.pid for trial in trials if trial.pid is not None and trial.state == "running"])
    if not any(map(is_assessable, trials)):
        return assess(trials, machine, None)
    from plumbline.lr_sweep.diagnosis.expected import StepReplay  # imports torch

    return assess(trials, machine, StepReplay(BUDGET_SECONDS))


def in_words(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis as lines for a terminal."""
    return [
        *_progress(diagnosis.progress),
        *_expected(diagnosis.expected),
        *_time(diagnosis.ledger_seconds.total),
        *(line for rank, cause in enumerate(diagnosis.causes, start=1) for line in _cause(rank, cause)),
        *_conclusion(diagnosis),
    ]


def _progress(progress: SweepProgress) -> list[str]:
    counts = {"done": progress.done, "running": progress.running, "left": progress.left}
    total = max(progress.trials, 1)
    trials = ", ".join(f"{count} {state} ({100 * count / total:.1f}%)" for state, count in counts.items())
    eta = "?" if progress.eta_seconds is None else f"{progress.eta_seconds:,.0f} s"
    lines = [
        f"trials: {progress.trials}: {trials}",
        f"steps: {progress.steps_done:,} of {progress.steps:,} ({progress.steps_percent:.1f}%), ETA {eta}",
        f"tokens/s: {_speed(progress.tokens_per_second_now)} now (all running trials),"
        f" {_speed(progress.tokens_per_second_overall)} overall (whole loop, with validation and checkpoints)",
    ]
    for trial in progress.running_trials:
        speed = trial.speed_against_start
        against = "" if speed is None else f", {speed:.0%} of its speed at the start"
        now = _speed(trial.tokens_per_second_now)
        lines.append(f"  running {trial.name}: {trial.percent:.1f}%, {now} tokens/s now{against}")
    return lines


def _expected(expected: Sequence[Expectation]) -> list[str]:
    """One line for all trials with the same expected speed: the sum of their tokens over their compute time."""
    groups: dict[tuple[object, ...], list[Expectation]] = {}
    for item in expected:
        key = item.threads, item.dtype, item.device, item.expected_tokens_per_second
        groups.setdefault(key, []).append(item)
    lines = []
    for items in groups.values():
        first, count = items[0], plural(len(items), "trial")
        seconds = sum(item.compute_seconds for item in items)
        actual = sum(item.tokens for item in items) / seconds if seconds else None
        expected_rate, ceiling = first.expected_tokens_per_second, first.matmul_ceiling_flops_per_second
        share = "" if not expected_rate or actual is None else f" ({actual / expected_rate:.0%})"
        lines.append(
            f"compute speed of {count} ({first.device}, {first.dtype}, threads: {first.threads}): {_speed(actual)}"
            f" tokens/s in forward, backward and optimizer; expected {_speed(expected_rate)}{share}"
        )
        if ceiling and actual is not None:
            lines.append(
                f"  MFU {actual * first.flops_per_token / ceiling:.1%} over {count}, relative to a matrix product at"
                f" {ceiling / 1e9:,.1f} GFLOP/s measured now; FLOPs per token: {first.flops_formula}"
            )
    return lines


def _time(total: dict[str, float]) -> list[str]:
    wall = sum(total.values())
    if not wall:
        return []
    notable = sorted(((seconds, name) for name, seconds in total.items() if seconds > 0.005 * wall), reverse=True)
    parts = (f"{name} {seconds:.1f} s ({seconds / wall:.0%})" for seconds, name in notable)
    return [f"where {wall:.1f} s went: {', '.join(parts)}"]


def _cause(rank: int, cause: RankedCause) -> list[str]:
    lost = f"{cause.seconds_lost:.1f} s lost ({cause.share:.0%})"
    worst = f"worst is {cause.worst_trial}" if cause.trials > 1 else cause.worst_trial
    lines = [f"{rank}. {cause.cause}: {lost} in {plural(cause.trials, 'trial')}; {worst}: {cause.evidence}"]
    if cause.counterfactual:
        lines.append(f"   measured now: {cause.counterfactual}")
    return [*lines, f"   fix: {cause.advice}"]


def _conclusion(diagnosis: Diagnosis) -> list[str]:
    unexplained = f"unexplained: {diagnosis.unexplained_seconds:.1f} s of compute beyond the replayed step"
    status = f"{diagnosis.status.replace('_', ' ')}: {diagnosis.why}"
    return [unexplained, status] if diagnosis.expected else [status]


def _speed(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}"
