"""The status of every target, read from records and journals; nothing is changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from plumbline.core.plan.provenance import recorded_spec, why_stale
from plumbline.core.plan.target import Target, canonical
from plumbline.core.run.liveness import is_running
from plumbline.core.run.progress import attempts, lost_seconds, read_journal
from plumbline.core.run.record import Outcome, read_record

State = Literal["done", "running", "failed", "stale", "missing"]
STATES: tuple[State, ...] = ("done", "running", "failed", "stale", "missing")


@dataclass(frozen=True, kw_only=True)
class TargetStatus:
    """One target's state, and what is known of it."""

    target: Target
    state: State
    why: tuple[str, ...] = ()
    """For a stale target what changed, for a failed one the message, for an interrupted one how far it was."""
    outcome: str | None = None
    seconds: float | None = None
    """Spent on a target that is done; on a trial with the attempts that were killed or failed on the way."""
    fraction: float | None = None
    """Share done, of a running target."""
    eta_seconds: float | None = None
    changed: float | None = None
    """When its journal last said something, in seconds since 1970."""

    @property
    def broke_off(self) -> bool:
        """Whether its last attempt ended without an output: it failed, or was killed."""
        return self.state == "failed" or (self.state == "missing" and bool(self.why))

    def to_json(self) -> dict[str, Any]:
        """The status as JSON values."""
        target = {"study": self.target.study, "stage": self.target.stage, "name": self.target.name}
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"target": target}


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """How many targets of one stage are in each state."""

    study: str
    stage: str
    is_trial: bool
    counts: dict[State, int]
    seconds: float
    """Time spent on the targets that are done, interrupted attempts of trials included."""
    eta_seconds: float | None
    """For what is left, at the mean time of those done and as many at once as run now; None while unknown."""

    @property
    def total(self) -> int:
        """Number of targets."""
        return sum(self.counts.values())


def target_statuses(targets: Iterable[Target], results: Path) -> list[TargetStatus]:
    """The status of each of `targets`, whose outputs lie below `results`."""
    found: dict[int, TargetStatus] = {}
    for target in targets:
        upstream = [found[id(need)] for need in target.needs if id(need) in found]
        events = read_journal(results / target.study / target.journal)
        found[id(target)] = target_status(target, results, upstream, events)
    return list(found.values())


def stage_summaries(found: Iterable[TargetStatus]) -> list[StageSummary]:
    """One summary for each stage, in the order of the plan."""
    groups: dict[tuple[str, str], list[TargetStatus]] = {}
    for status in found:
        if status.target.optional and status.state == "missing":
            continue
        groups.setdefault((status.target.study, status.target.stage), []).append(status)
    return [_stage_summary(study, stage, group) for (study, stage), group in groups.items()]


def target_status(
    target: Target, results: Path, upstream: Sequence[TargetStatus], events: Sequence[dict[str, Any]]
) -> TargetStatus:
    """The status of `target`, of whose inputs `upstream` is known; `events`: those of its journal."""
    last = events[-1] if events else {}
    running = running_status(target, events)
    if running is not None:
        return running
    if target.file(results).exists():
        return replace(_status_of_output(target, results, upstream, events), changed=last.get("time"))
    state: State = "missing"
    why: tuple[str, ...] = ()
    if last.get("event") == "failed":
        state, why = "failed", (str(last.get("message")),)
    elif events and last.get("event") != "end":
        share = last["done"] / last["total"] if last.get("total") else 0.0
        why = (f"interrupted at {share:.0%}",)
    return TargetStatus(target=target, state=state, why=why, changed=last.get("time"))


def running_status(target: Target, events: Sequence[dict[str, Any]]) -> TargetStatus | None:
    """How far `target` is, by the `events` of its last attempt; None when no process works on it."""
    if not is_running(events):
        return None
    last: dict[str, Any] = next((event for event in reversed(attempts(events)[-1]) if event.get("total")), {})
    fraction, changed = last["done"] / last["total"] if last else None, events[-1]["time"]
    eta = last.get("eta_seconds")
    return TargetStatus(target=target, state="running", fraction=fraction, eta_seconds=eta, changed=changed)


def _status_of_output(
    target: Target, results: Path, upstream: Sequence[TargetStatus], events: Sequence[dict[str, Any]]
) -> TargetStatus:
    spec = recorded_spec(target, results)
    if spec is None or canonical(spec) != target.spec:
        causes = [need for need in upstream if need.state == "stale"]
        clauses = why_stale(spec, target, results)
        why = [clause for clause in clauses if not (clause.startswith("inputs:") and causes)]
        if causes:
            more = f" and {len(causes) - 1} more" if len(causes) > 1 else ""
            why.append(f"its input {causes[0].target.path}{more} is stale")
        return TargetStatus(target=target, state="stale", why=tuple(why))
    seconds = next((event["seconds"] for event in reversed(events) if event.get("event") == "end"), None)
    if target.is_trial:
        record = read_record(target.file(results))
        own = record["seconds"] if seconds is None or not target.beside else seconds  # of several records: of all
        spent = own + lost_seconds(events)
        return TargetStatus(target=target, state="done", outcome=record["outcome"], seconds=spent)
    return TargetStatus(target=target, state="done", outcome=Outcome.OK.value, seconds=seconds)


def _stage_summary(study: str, stage: str, group: list[TargetStatus]) -> StageSummary:
    counts: dict[State, int] = {state: sum(item.state == state for item in group) for state in STATES}
    times = [item.seconds for item in group if item.state == "done" and item.seconds is not None]
    left = len(group) - counts["done"]
    at_once = max(counts["running"], 1)
    eta = left * sum(times) / len(times) / at_once if times and left else (0.0 if not left else None)
    is_trial = group[0].target.is_trial
    return StageSummary(study=study, stage=stage, is_trial=is_trial, counts=counts, seconds=sum(times), eta_seconds=eta)
