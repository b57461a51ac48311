"""From evidence to a diagnosis: progress, expected against actual speed, the ledger, and causes by seconds lost."""

from collections.abc import Sequence

from plumbline.lr_sweep.diagnosis import verdict
from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, load, names
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.ledger import ledger, total
from plumbline.lr_sweep.diagnosis.machine import Machine

MIN_SECONDS = 0.5
"""A trial must have trained for this long to be assessed."""
ALARM_SHARE = 0.1
"""A cause that loses this share of all time is an alarm."""
ALARM_SHARE_OF_A_TRIAL = 0.3
MENTION_SHARE = 0.01
UNEXPLAINED_SHARE = 0.25
RECENT = 5
"""Number of log intervals that count as `now` and as the start."""


def assess(trials: Sequence[TrialEvidence], machine: Machine, timer: StepTimer | None) -> verdict.Diagnosis:
    """The diagnosis. timer: None when no trial has trained long enough to be assessed."""
    assessed = [trial for trial in trials if is_assessable(trial)]
    found = {trial.name: _findings(trial, machine, timer) for trial in assessed} if timer else {}
    causes = rank(assessed, found)
    expected = [_expectation(trial, timer, found[trial.name]) for trial in assessed] if timer else []
    unexplained = sum(item.unexplained_seconds or 0.0 for item in expected)
    measured = any(item.expected_step_seconds is not None for item in expected)
    status, why = _status(assessed, causes, measured, unexplained)
    ledgers = {trial.name: ledger(trial) for trial in trials if trial.state != "waiting"}
    return verdict.Diagnosis(
        status=status,
        why=why,
        progress=progress(trials),
        expected=expected,
        ledger_seconds=verdict.Ledgers(total=total(ledgers.values()), trials=ledgers),
        causes=causes,
        unexplained_seconds=unexplained,
        machine=verdict.MachineLoad(cores=machine.cores, cpu_pressure_percent=machine.pressure_percent),
    )


def is_assessable(trial: TrialEvidence) -> bool:
    """Whether it has trained long enough, or is stopped right now."""
    return trial.is_stopped or (trial.training_seconds >= MIN_SECONDS and trial.done > 0)


def rank(assessed: Sequence[TrialEvidence], found: dict[str, dict[str, Finding]]) -> list[verdict.RankedCause]:
    """The causes that lost at least `MENTION_SHARE` of the time, most seconds first."""
    times = {trial.name: _time_of(trial, found.get(trial.name, {})) for trial in assessed}
    ranked = []
    for cause in sorted({cause for findings in found.values() for cause in findings}):
        hit = {trial: findings[cause] for trial, findings in found.items() if cause in findings}
        worst = max(hit, key=lambda trial: hit[trial].seconds_lost)
        lost = sum(finding.seconds_lost for finding in hit.values())
        ranked.append(
            verdict.RankedCause(
                cause=cause,
                seconds_lost=lost,
                share=lost / sum(times.values()),
                trials=len(hit),
                worst_trial=worst,
                worst_share=hit[worst].seconds_lost / times[worst],
                evidence=hit[worst].evidence,
                counterfactual=hit[worst].counterfactual,
                advice=hit[worst].advice,
            )
        )
    notable = (item for item in ranked if max(item.share, 0.3 * item.worst_share) >= MENTION_SHARE)
    return sorted(notable, key=lambda item: -item.seconds_lost)


def progress(trials: Sequence[TrialEvidence]) -> verdict.SweepProgress:
    """Trials and steps done, tokens per second now and overall, ETA."""
    done_trials, running_trials, failed = (
        sum(trial.state == state for trial in trials) for state in ("done", "running", "failed")
    )
    known = [trial.total for trial in trials if trial.total]
    steps = sum(trial.total or (max(known) if known else 0) for trial in trials)
    done = sum(trial.total if trial.state == "done" else trial.done for trial in trials)
    seconds = sum(trial.training_seconds for trial in trials)
    tokens = sum(trial.done * trial.tokens_per_step for trial in trials)
    running = [_running(trial) for trial in trials if trial.state == "running"]
    rates = [item.tokens_per_second_now for item in running if item.tokens_per_second_now]
    size = max((trial.tokens_per_step for trial in trials if trial.total), default=0)
    left = (steps - done) * size
    return verdict.SweepProgress(
        trials=len(trials),
        done=done_trials,
        running=running_trials,
        failed=failed,
        left=len(trials) - done_trials - running_trials,
        done_percent=100 * done_trials / len(trials) if trials else 0.0,
        steps_done=done,
        steps=steps,
        steps_percent=100 * done / steps if steps else 0.0,
        tokens_per_second_now=sum(rates) if rates else None,
        tokens_per_second_overall=tokens / seconds if seconds else None,
        eta_seconds=0.0 if steps and not left else left / sum(rates) if rates else None,
        running_trials=running,
    )


def _running(trial: TrialEvidence) -> verdict.RunningTrial:
    steady = [interval for interval in trial.intervals if interval.steps > 0]
    now = trial.speed_over(steady[-RECENT:]) or trial.tokens_per_second
    start = trial.speed_over(steady[1 : 1 + RECENT]) if len(steady) > 2 * RECENT else None
    return verdict.RunningTrial(
        name=trial.name,
        steps_done=trial.done,
        steps=trial.total,
        percent=100 * trial.done / trial.total if trial.total else 0.0,
        tokens_per_second_now=now,
        speed_against_start=now / start if now and start else None,
        silent_seconds=trial.silent_seconds,
    )


def _findings(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> dict[str, Finding]:
    answers = {name: load(name)(trial, machine, timer) for name in names()}
    return {name: finding for name, finding in answers.items() if finding is not None and finding.seconds_lost > 0}


def _expectation(trial: TrialEvidence, timer: StepTimer, findings: dict[str, Finding]) -> verdict.Expectation:
    """The replayed step against the trial's, and the part of the difference that no cause explains."""
    from plumbline.lr_sweep.training.model import FLOPS_FORMULA, flops_per_token  # only from here on is torch needed

    step, ceiling = timer.step_seconds(trial), timer.ceiling(trial)
    actual = trial.done * trial.tokens_per_step / trial.compute_seconds if trial.compute_seconds else None
    flops = flops_per_token(trial.model)
    explained = sum(finding.in_compute for finding in findings.values())
    return verdict.Expectation(
        trial=trial.name,
        threads=trial.threads,
        dtype=trial.dtype,
        device=trial.device,
        expected_step_seconds=step,
        expected_tokens_per_second=trial.tokens_per_step / step if step else None,
        tokens=trial.done * trial.tokens_per_step,
        compute_seconds=trial.compute_seconds,
        compute_tokens_per_second=actual,
        loop_tokens_per_second=trial.tokens_per_second,
        flops_per_token=flops,
        flops_formula=FLOPS_FORMULA,
        matmul_ceiling_flops_per_second=ceiling,
        mfu=actual * flops / ceiling if actual and ceiling else None,
        unexplained_seconds=None if step is None else max(0.0, trial.compute_seconds - trial.done * step - explained),
    )


def _time_of(trial: TrialEvidence, findings: dict[str, Finding]) -> float:
    """All the time that could be lost: the loop, suspension of the machine, and a stop that has not ended."""
    suspended = sum(interval.suspended for interval in trial.intervals)
    return max(trial.training_seconds + suspended, *(finding.seconds_lost for finding in findings.values()), 1e-9)


def _status(
    assessed: Sequence[TrialEvidence], causes: Sequence[verdict.RankedCause], measured: bool, unexplained: float
) -> tuple[verdict.Status, str]:
    if not assessed:
        return "inconclusive", f"no trial has trained for {MIN_SECONDS} s yet"
    alarms = [item for item in causes if item.share >= ALARM_SHARE or item.worst_share >= ALARM_SHARE_OF_A_TRIAL]
    if alarms:
        first = alarms[0]
        return "slower_than_expected", f"{first.cause}: {first.seconds_lost:.1f} s lost ({first.share:.0%})"
    if not measured:
        why = "the expected speed could not be measured: the trials ran on another machine or device, or time ran out"
        return "inconclusive", why
    compute = sum(trial.compute_seconds for trial in assessed)
    if unexplained > UNEXPLAINED_SHARE * compute:
        share = unexplained / compute
        why = f"unexplained: {unexplained:.1f} s of {compute:.1f} s compute time ({share:.0%})"
        return "slower_than_expected", why
    return "healthy", "the trials are as fast as a replay of their own step on this machine, with little overhead"
