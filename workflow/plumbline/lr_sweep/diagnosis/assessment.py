"""From evidence to a verdict: progress, expected against seen, the ledger, and the causes ranked by seconds lost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, load, names
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.ledger import ledger, total
from plumbline.lr_sweep.diagnosis.machine import Machine

Status = Literal["healthy", "slower_than_expected", "cannot_tell"]
EXIT_STATUS: dict[Status, int] = {"healthy": 0, "slower_than_expected": 1, "cannot_tell": 2}
LEAST_SECONDS = 0.5
"""Of training that a trial must have done to be judged."""
ALARM_SHARE = 0.1
"""Of all time, lost to one cause, that is an alarm."""
ALARM_SHARE_OF_A_TRIAL = 0.3
MENTION_SHARE = 0.01
UNEXPLAINED_SHARE = 0.25
RECENT = 5
"""Intervals between looks at the clocks that count as `now` and as the start."""


@dataclass(frozen=True, kw_only=True)
class RankedCause:
    """One cause over all trials."""

    cause: str
    seconds_lost: float
    share: float
    """Of all trials' time."""
    trials: int
    worst_trial: str
    worst_share: float
    finding: Finding
    """Of the worst trial."""


def assess(trials: Sequence[TrialEvidence], machine: Machine, probe: Probe | None) -> dict[str, Any]:
    """The diagnosis, as JSON values. probe: None when no trial has come far enough to be judged."""
    judged = [trial for trial in trials if is_judged(trial)]
    found = {trial.name: _findings(trial, machine, probe) for trial in judged} if probe else {}
    ranked = rank(judged, found)
    expected = [_expected(trial, probe, found[trial.name]) for trial in judged] if probe else []
    unexplained = sum(item["unexplained_seconds"] or 0.0 for item in expected)
    status, why = _verdict(judged, ranked, expected, unexplained)
    ledgers = {trial.name: ledger(trial) for trial in trials if trial.state != "waiting"}
    return {
        "status": status,
        "why": why,
        "progress": progress(trials),
        "expected": expected,
        "ledger_seconds": {"total": total(ledgers.values()), "trials": ledgers},
        "causes": [_cause_json(item) for item in ranked],
        "unexplained_seconds": unexplained,
        "machine": {"cores": machine.cores, "cpu_pressure_percent": machine.pressure_percent},
    }


def is_judged(trial: TrialEvidence) -> bool:
    """Whether it has trained long enough to say anything, or is stopped now."""
    return trial.is_stopped or (trial.training_seconds >= LEAST_SECONDS and trial.done > 0)


def rank(judged: Sequence[TrialEvidence], found: dict[str, dict[str, Finding]]) -> list[RankedCause]:
    """The causes that lost at least `MENTION_SHARE` of the time, most seconds first."""
    times = {trial.name: _time_of(trial, found.get(trial.name, {})) for trial in judged}
    ranked = []
    for cause in sorted({cause for findings in found.values() for cause in findings}):
        hit = {trial: findings[cause] for trial, findings in found.items() if cause in findings}
        worst = max(hit, key=lambda trial: hit[trial].seconds_lost)
        lost = sum(finding.seconds_lost for finding in hit.values())
        ranked.append(
            RankedCause(
                cause=cause,
                seconds_lost=lost,
                share=lost / sum(times.values()),
                trials=len(hit),
                worst_trial=worst,
                worst_share=hit[worst].seconds_lost / times[worst],
                finding=hit[worst],
            )
        )
    notable = (item for item in ranked if max(item.share, 0.3 * item.worst_share) >= MENTION_SHARE)
    return sorted(notable, key=lambda item: -item.seconds_lost)


def progress(trials: Sequence[TrialEvidence]) -> dict[str, Any]:
    """How far the study is: trials and steps in percent, tokens a second now and overall, ETA."""
    counts = {state: sum(trial.state == state for trial in trials) for state in ("done", "running", "failed")}
    known = [trial.total for trial in trials if trial.total]
    steps = sum(trial.total or (max(known) if known else 0) for trial in trials)
    done = sum(trial.total if trial.state == "done" else trial.done for trial in trials)
    seconds = sum(trial.training_seconds for trial in trials)
    tokens = sum(trial.done * trial.tokens_per_step for trial in trials)
    running = [_running(trial) for trial in trials if trial.state == "running"]
    rates = [item["tokens_per_second_now"] for item in running if item["tokens_per_second_now"]]
    size = max((trial.tokens_per_step for trial in trials), default=0)
    left = (steps - done) * size
    return {
        "trials": len(trials),
        **counts,
        "left": len(trials) - counts["done"] - counts["running"],
        "done_percent": 100 * counts["done"] / len(trials) if trials else 0.0,
        "steps_done": done,
        "steps": steps,
        "steps_percent": 100 * done / steps if steps else 0.0,
        "tokens_per_second_now": sum(rates) if rates else None,
        "tokens_per_second_overall": tokens / seconds if seconds else None,
        "eta_seconds": 0.0 if steps and not left else left / sum(rates) if rates else None,
        "running_trials": running,
    }


def _running(trial: TrialEvidence) -> dict[str, Any]:
    steady = [interval for interval in trial.intervals if interval.steps > 0]
    now = trial.rate(steady[-RECENT:]) or trial.tokens_per_second
    start = trial.rate(steady[1 : 1 + RECENT]) if len(steady) > 2 * RECENT else None
    return {
        "name": trial.name,
        "steps_done": trial.done,
        "steps": trial.total,
        "percent": 100 * trial.done / trial.total if trial.total else 0.0,
        "tokens_per_second_now": now,
        "speed_against_start": now / start if now and start else None,
        "silent_seconds": trial.silent_seconds,
    }


def _findings(trial: TrialEvidence, machine: Machine, probe: Probe) -> dict[str, Finding]:
    answers = {name: load(name)(trial, machine, probe) for name in names()}
    return {name: finding for name, finding in answers.items() if finding is not None and finding.seconds_lost > 0}


def _expected(trial: TrialEvidence, probe: Probe, findings: dict[str, Finding]) -> dict[str, Any]:
    """The replayed step against the seen one, and what of the difference no cause explains."""
    from plumbline.lr_sweep.settings import ModelSettings
    from plumbline.lr_sweep.training.model import FLOPS_FORMULA, flops_per_token  # torch is needed from here on only

    step, ceiling = probe.step_seconds(trial), probe.ceiling(trial)
    seen = trial.done * trial.tokens_per_step / trial.compute_seconds if trial.compute_seconds else None
    flops = flops_per_token(ModelSettings.model_validate(dict(trial.model)))
    explained = sum(finding.in_compute for finding in findings.values())
    rest = None if step is None else max(0.0, trial.compute_seconds - trial.done * step - explained)
    return {
        "trial": trial.name,
        "threads": trial.threads,
        "dtype": trial.dtype,
        "device": trial.device,
        "expected_step_seconds": step,
        "expected_tokens_per_second": trial.tokens_per_step / step if step else None,
        "tokens": trial.done * trial.tokens_per_step,
        "compute_seconds": trial.compute_seconds,
        "compute_tokens_per_second": seen,
        "loop_tokens_per_second": trial.tokens_per_second,
        "flops_per_token": flops,
        "flops_formula": FLOPS_FORMULA,
        "matmul_ceiling_flops_per_second": ceiling,
        "mfu": seen * flops / ceiling if seen and ceiling else None,
        "unexplained_seconds": rest,
    }


def _time_of(trial: TrialEvidence, findings: dict[str, Finding]) -> float:
    """All the time that can be lost: the loop, sleep of the machine, and silence that has not ended."""
    slept = sum(interval.suspended for interval in trial.intervals)
    return max(trial.training_seconds + slept, *(finding.seconds_lost for finding in findings.values()), 1e-9)


def _verdict(
    judged: Sequence[TrialEvidence], ranked: Sequence[RankedCause], expected: Sequence[dict[str, Any]], rest: float
) -> tuple[Status, str]:
    if not judged:
        return "cannot_tell", f"no trial has trained for {LEAST_SECONDS} s yet"
    alarms = [item for item in ranked if item.share >= ALARM_SHARE or item.worst_share >= ALARM_SHARE_OF_A_TRIAL]
    if alarms:
        first = alarms[0]
        return "slower_than_expected", f"{first.cause}: {first.seconds_lost:.1f} s lost ({first.share:.0%})"
    known = [item for item in expected if item["expected_step_seconds"] is not None]
    if not known:
        return "cannot_tell", "no expected speed could be measured here: other machine, device, or no time"
    compute = sum(trial.compute_seconds for trial in judged)
    if rest > UNEXPLAINED_SHARE * compute:
        share = f"({rest / compute:.0%})"
        return "slower_than_expected", f"unexplained: {rest:.1f} s of {compute:.1f} s of computing {share}"
    return "healthy", "as fast as a replay of its own step on this machine, and little time lost beside it"


def _cause_json(item: RankedCause) -> dict[str, Any]:
    return {
        "cause": item.cause,
        "seconds_lost": item.seconds_lost,
        "share": item.share,
        "trials": item.trials,
        "worst_trial": item.worst_trial,
        "evidence": item.finding.evidence,
        "counterfactual": item.finding.counterfactual,
        "advice": item.finding.advice,
    }
