"""Who is to blame when ranks do not get on."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import psutil

from plumbline.core.errors import UserError
from plumbline.core.run.processes import oom_kill_count
from plumbline.core.run.progress import Progress
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.data_parallel.ranks.board import Sighting, State, read

POLL_SECONDS = 0.2
SETTLE_SECONDS = 0.6
"""After the first sign of trouble: the others' errors follow, and the first one's must be on the board by then."""
STOPPED_SECONDS = 3.0
START_SECONDS = 120.0
"""Until all ranks run they may take so long, whatever the timeout: importing torch, meeting the others."""
RESUME = "run again to resume"
TORCHRUN_LOG = "torchrun.log"


def watch(folder: Path, world: int, timeout: float, oom_kills: int, steps: int | None) -> None:
    """Returns when all ranks are done. Raises what `blame` raises when one is gone, stopped, or no rank gets on.

    timeout: seconds in which some rank must have got on, once all run. oom_kills: as `blame` takes it. steps: how many
    the ranks take, for the progress that is reported meanwhile; None reports none.
    """
    wait = partial(_wait, folder, world, timeout, oom_kills)
    step = min(one.step for one in wait(_all_run))  # where a resumed trial begins
    with Progress(steps, "steps", done=step) if steps is not None else nullcontext() as progress:
        wait(_all_ended, progress)


def _all_run(ranks: Sequence[Sighting]) -> bool:
    return all(one.state is not State.STARTING for one in ranks)


def _all_ended(ranks: Sequence[Sighting]) -> bool:
    return all(one.state in (State.DONE, State.INTERRUPTED) for one in ranks)


def _wait(
    folder: Path,
    world: int,
    timeout: float,
    oom_kills: int,
    is_over: Callable[[Sequence[Sighting]], bool],
    progress: Progress | None = None,
) -> list[Sighting]:
    """The ranks, once all are there and `is_over` says so."""
    beats, since = -1, time.monotonic()
    stopped_since = None
    while True:
        ranks = read(folder, world)
        all_run = len(ranks) == world and _all_run(ranks)
        if progress is not None:
            progress.advance(min(one.step for one in ranks) - progress.done)
        if len(ranks) == world and is_over(ranks):
            return ranks
        now = time.monotonic()
        if (total := sum(one.beats for one in ranks)) != beats:
            beats, since = total, now
        here = [one for one in ranks if one.is_here and one.state in (State.STARTING, State.RUNNING)]
        statuses = {one.rank: one.process_status() for one in here}
        is_stopped = psutil.STATUS_STOPPED in statuses.values()
        stopped_since = (stopped_since or now) if is_stopped else None
        failed = any(one.state is State.FAILED for one in ranks)
        if failed or None in statuses.values():
            time.sleep(SETTLE_SECONDS)
            blame(folder, world, oom_kills)
        if now - since > (timeout if all_run else max(timeout, START_SECONDS)) or (
            stopped_since and now - stopped_since > STOPPED_SECONDS
        ):
            blame(folder, world, oom_kills, waited=now - since)
        time.sleep(POLL_SECONDS)


def blame(folder: Path, world: int, oom_kills: int, waited: float | None = None) -> None:
    """Raises the error of the rank that the trouble began with; returns when all is well.

    In this order: a rank with an error of its own, the first; one that is gone without a word; one that is stopped;
    and when all have `waited` in vain, those that are behind. Errors of ranks whose peer went away only follow.
    oom_kills: how many processes the kernel had killed for lack of memory before the ranks began; with more by now, a
    rank that is gone was one of them, and MemoryError is raised.
    """
    ranks = read(folder, world)
    own = [one for one in ranks if one.error and one.error["kind"] != "communication"]
    if own:
        raise _error(min(own, key=lambda one: float(one.error["time"]) if one.error else 0.0), folder)
    running = [one for one in ranks if one.state in (State.STARTING, State.RUNNING)]
    for one in running:
        if one.is_here and one.process_status() is None:
            if oom_kill_count() > oom_kills:
                raise MemoryError(f"rank {one.rank}: the kernel ended it in step {one.step} for lack of memory")
            what = f"ended in step {one.step} without a word, killed or by leaving"
            raise UserError(f"rank {one.rank} (process {one.pid}) {what}; {RESUME}")
    for one in running:
        if one.is_here and one.process_status() == psutil.STATUS_STOPPED:
            raise UserError(f"rank {one.rank} (process {one.pid}) was stopped in step {one.step}; {RESUME}")
    if waited is not None:
        least = min((one.beats for one in running), default=0)
        behind = [one for one in running if one.beats == least]
        missing = sorted(set(range(world)) - {one.rank for one in ranks})
        names = missing or [one.rank for one in behind]
        label = f"rank{'s' * (len(names) > 1)} {', '.join(map(str, names))}"
        what = (
            "did not start" if missing else f"hang{'s' * (len(names) == 1)} in step {behind[0].step}" if behind else ""
        )
        raise UserError(f"{label} {what}: no rank got on for {waited:.0f} s; {RESUME}")
    if lost := [one for one in ranks if one.error]:
        raise _error(lost[0], folder)


def _error(one: Sighting, folder: Path) -> Exception:
    assert one.error is not None
    kind, message = one.error["kind"], one.error["message"]
    match kind:
        case "memory":
            return MemoryError(f"rank {one.rank}: {message}")
        case "user_error":
            return UserError(f"rank {one.rank}: {message}")
        case "outcome":
            return OutcomeError(Outcome(one.error["outcome"]), f"rank {one.rank}: {message}")
        case "communication":
            return UserError(f"rank {one.rank} lost its connection in step {one.step} ({message}); {RESUME}")
    return UserError(f"rank {one.rank} failed in step {one.step}: {message}; see {folder / TORCHRUN_LOG}; {RESUME}")
