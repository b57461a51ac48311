"""How far a run is: what the live view shows, as numbers and as lines of text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plumbline.core.plan.status import TargetStatus
from plumbline.core.plan.target import Target

LAST_BYTES = 2**16
"""Of a log, where its last line is looked for."""


Test = Callable[[TargetStatus], bool]


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What is still to do, in seconds."""

    seconds: float
    is_complete: bool
    """False when nothing tells how long some of it takes: then it takes at least this long."""

    def __str__(self) -> str:
        if not self.is_complete:
            return f"> {duration(self.seconds)}" if self.seconds else "?"
        return duration(self.seconds)


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """One study's trials, and its other steps: how many there are, and in which state."""

    study: str
    done: int
    trials: int
    running: int
    failed: int
    """Trials and other steps; so are `running` and `interrupted`."""
    interrupted: int
    """Those that were stopped, by Ctrl-C or by a kill, before they could say why."""
    steps_done: int
    steps: int
    remaining: Remaining

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.done == self.trials and self.steps_done == self.steps

    def __str__(self) -> str:
        parts = [f"{self.done}/{self.trials} trials", f"{self.steps_done}/{self.steps} other steps"]
        parts += [f"{self.running} running"] if self.running else []
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.interrupted} interrupted"] if self.interrupted else []
        eta = "" if self.is_done else f", ETA {self.remaining}"
        return f"{self.study}: {', '.join(parts)}{eta}"


def has_failed_since(moment: float) -> Test:
    """Tells targets whose last attempt broke off after `moment`, in seconds since 1970; what failed earlier waits."""
    return lambda status: status.broke_off and (status.changed or 0.0) >= moment


def study_progress(found: Sequence[TargetStatus], has_failed: Test, now: float) -> list[StudyProgress]:
    """One for each study in `found`, in its order. now: seconds since 1970."""
    asked = [item for item in found if not (item.target.optional and item.state == "missing" and not item.why)]
    times = _seconds_by_stage(asked)
    groups: dict[str, list[TargetStatus]] = {}
    for item in asked:
        groups.setdefault(item.target.study, []).append(item)
    return [_one_study(study, group, has_failed, times, now) for study, group in groups.items()]


def remaining(left: Iterable[TargetStatus], times: dict[tuple[str, str], float], at_once: int, now: float) -> Remaining:
    """How long `left` takes when `at_once` of them run at a time.

    times: mean seconds of the targets of a stage that are done. A running target takes as long as its own progress
    says, else what is left of the mean.
    """
    total = longest = 0.0
    is_complete = True
    for item in left:
        mean = times.get((item.target.study, item.target.stage))
        if item.state == "running":
            own = None if mean is None else mean * (1 - (item.fraction or 0.0))
            seconds = own if item.eta_seconds is None else max(item.eta_seconds - (now - (item.changed or now)), 0.0)
            longest = max(longest, seconds or 0.0)
        else:
            seconds = mean
        is_complete = is_complete and seconds is not None
        total += seconds or 0.0
    return Remaining(seconds=max(total / max(at_once, 1), longest), is_complete=is_complete)


def remaining_of_all(found: Sequence[TargetStatus], has_failed: Test, now: float) -> Remaining:
    """How long everything takes that is not done and has not failed."""
    left = [item for item in found if not _is_over(item, has_failed)]
    at_once = sum(item.state == "running" for item in found)
    return remaining(left, _seconds_by_stage(found), at_once, now)


def target_name(target: Target) -> str:
    """A target as messages call it: ablation/train/factor/all_layers/spectral."""
    return f"{target.study}/{target.path}"


def ending(status: TargetStatus) -> str:
    """What became of a target that broke off: `failed`, or `interrupted` where it had no time to say why."""
    return "failed" if status.state == "failed" else "interrupted"


def log_of(target: Target, results: Path) -> Path:
    """Its log file."""
    return results / target.study / target.log


def last_line(path: Path) -> str:
    """The last line of a log that is not empty; nothing where there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - LAST_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def duration(seconds: float) -> str:
    """`8 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _is_over(item: TargetStatus, has_failed: Test) -> bool:
    """Whether nothing more happens with a target: it is done, has failed, or is never asked for."""
    never_asked = item.target.optional and item.state == "missing"
    return item.state == "done" or never_asked or has_failed(item)


def _seconds_by_stage(found: Iterable[TargetStatus]) -> dict[tuple[str, str], float]:
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    for item in found:
        if item.state == "done" and item.seconds is not None:
            stage = item.target.study, item.target.stage
            total, count = sums.get(stage, (0.0, 0))
            sums[stage] = total + item.seconds, count + 1
    return {stage: total / count for stage, (total, count) in sums.items()}


def _one_study(
    study: str,
    group: Sequence[TargetStatus],
    has_failed: Test,
    times: dict[tuple[str, str], float],
    now: float,
) -> StudyProgress:
    trials = [item for item in group if item.target.is_trial]
    steps = [item for item in group if not item.target.is_trial]
    running = sum(item.state == "running" for item in group)
    left = [item for item in group if not _is_over(item, has_failed)]
    endings = [ending(item) for item in group if has_failed(item)]
    return StudyProgress(
        study=study,
        done=sum(item.state == "done" for item in trials),
        trials=len(trials),
        running=running,
        failed=endings.count("failed"),
        interrupted=endings.count("interrupted"),
        steps_done=sum(item.state == "done" for item in steps),
        steps=len(steps),
        remaining=remaining(left, times, running, now),
    )
