"""A diagnosis of a study folder, and the diagnosis in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.lr_sweep.diagnosis.assessment import assess, is_judged
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence, read_trials
from plumbline.lr_sweep.diagnosis.machine import observe

BUDGET_SECONDS = 18.0
"""For measuring; with imports, looking around and what a measurement overruns a diagnosis stays below 30 s."""


def diagnose_study(study: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The diagnosis of the trials `names` (None: all that left a trace) below `study`. Changes nothing.

    torch is imported only when a trial has come far enough to be measured against.
    """
    return diagnose_trials(read_trials(study, names))


def diagnose_trials(trials: Sequence[TrialEvidence]) -> dict[str, Any]:
    """The diagnosis of what was read of some trials."""
    machine = observe([trial.pid for trial in trials if trial.pid is not None and trial.state == "running"])
    if not any(map(is_judged, trials)):
        return assess(trials, machine, None)
    from plumbline.lr_sweep.diagnosis.expected import StepProbe  # imports torch

    return assess(trials, machine, StepProbe(BUDGET_SECONDS))


def in_words(diagnosis: dict[str, Any]) -> list[str]:
    """The diagnosis as lines for a terminal."""
    return [*_progress(diagnosis["progress"]), *_expected(diagnosis), *_time(diagnosis), *_causes(diagnosis)]


def _progress(progress: dict[str, Any]) -> list[str]:
    count = progress["trials"]
    shares = {key: 100 * progress[key] / count if count else 0.0 for key in ("done", "running", "left")}
    trials = ", ".join(f"{progress[key]} {key} ({share:.1f}%)" for key, share in shares.items())
    eta = "?" if progress["eta_seconds"] is None else f"{progress['eta_seconds']:,.0f} s"
    lines = [
        f"trials: {count}: {trials}",
        f"steps: {progress['steps_done']:,} of {progress['steps']:,} ({progress['steps_percent']:.1f}%), ETA {eta}",
        f"tokens/s: {_rate(progress['tokens_per_second_now'])} now (all trials),"
        f" {_rate(progress['tokens_per_second_overall'])} overall (a trial's whole loop, validation and checkpoints"
        " counted)",
    ]
    for trial in progress["running_trials"]:
        speed = trial["speed_against_start"]
        against = "" if speed is None else f", {speed:.0%} of its speed at the start"
        now = _rate(trial["tokens_per_second_now"])
        lines.append(f"  running {trial['name']}: {trial['percent']:.1f}%, {now} tokens/s now{against}")
    return lines


def _expected(diagnosis: dict[str, Any]) -> list[str]:
    """One line for all trials of the same expectation: all their tokens over all their seconds of computing."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for item in diagnosis["expected"]:
        key = item["threads"], item["dtype"], item["device"], item["expected_tokens_per_second"]
        groups.setdefault(key, []).append(item)
    lines = []
    for (threads, dtype, device, expected), items in groups.items():
        seconds = sum(item["compute_seconds"] for item in items)
        seen = sum(item["tokens"] for item in items) / seconds if seconds else None
        share = "" if not expected or seen is None else f" ({seen / expected:.0%})"
        lines.append(
            f"expected of {_count(len(items))} ({device}, {dtype}, threads: {threads}): {_rate(expected)} tokens/s of"
            f" computing (forward, backward, optimizer); seen {_rate(seen)}{share}"
        )
        ceiling = items[0]["matmul_ceiling_flops_per_second"]  # measured once for all that compute alike
        if ceiling and seen is not None:
            lines.append(
                f"  MFU {seen * items[0]['flops_per_token'] / ceiling:.1%} over {_count(len(items))}, of the matrix"
                f" product's {ceiling / 1e9:,.1f} GFLOP/s measured now; FLOPs a token: {items[0]['flops_formula']}"
            )
    return lines


def _time(diagnosis: dict[str, Any]) -> list[str]:
    total = diagnosis["ledger_seconds"]["total"]
    wall = sum(total.values())
    if not wall:
        return []
    parts = sorted(total.items(), key=lambda item: -item[1])
    notable = [(name, seconds) for name, seconds in parts if seconds > 0.005 * wall]
    shown = ", ".join(f"{name} {seconds:.1f} s ({seconds / wall:.0%})" for name, seconds in notable)
    return [f"where {wall:.1f} s went: {shown}"]


def _causes(diagnosis: dict[str, Any]) -> list[str]:
    lines = []
    for place, cause in enumerate(diagnosis["causes"], start=1):
        lost = f"{cause['seconds_lost']:.1f} s lost ({cause['share']:.0%})"
        which = cause["worst_trial"] + (", the worst" if cause["trials"] > 1 else "")
        lines.append(f"{place}. {cause['cause']}: {lost} in {_count(cause['trials'])}; {which}: {cause['evidence']}")
        if cause["counterfactual"]:
            lines.append(f"   measured now: {cause['counterfactual']}")
        lines.append(f"   way out: {cause['advice']}")
    if diagnosis["expected"]:
        lines.append(f"unexplained: {diagnosis['unexplained_seconds']:.1f} s of computing beyond the replayed step")
    return [*lines, f"{diagnosis['status'].replace('_', ' ')}: {diagnosis['why']}"]


def _count(trials: int) -> str:
    return "1 trial" if trials == 1 else f"{trials} trials"


def _rate(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}"
