"""The snapshots in a trial's journal: what a training run writes about itself at every log interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from plumbline.core.measure.spans import COMPUTE_SPANS
from plumbline.core.settings import validated
from plumbline.lr_sweep.record import SwitchDecision

WAITING_SPANS = ("data_wait", "checkpoint", "logging")
"""Spans in which a process may wait for a disk."""


class Clock(BaseModel):
    """The clocks of one process, as `core.measure.clocks` reads them."""

    boottime: float
    monotonic: float
    process: float
    run_delay: float | None
    pressure_cpu_avg10: float | None


class Snapshot(BaseModel):
    """A journal line with the state of a run: steps done, seconds by span since the trial began, clocks."""

    done: int
    spans: dict[str, float]
    clock: Clock
    threads: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    precision: dict[str, SwitchDecision] = {}
    compiler: dict[str, int] = {}


@dataclass(frozen=True, kw_only=True)
class LogInterval:
    """The time between two snapshots of one process. All in seconds, except for `steps`."""

    steps: float
    monotonic: float
    process: float
    """CPU time of all threads."""
    run_delay: float | None
    """Time in which the main thread was ready to run and no core was free; None where the system does not report it."""
    suspended: float
    spans: dict[str, float]

    @property
    def compute(self) -> float:
        """Forward, backward and optimizer."""
        return sum(self.spans.get(name, 0.0) for name in COMPUTE_SPANS)

    @property
    def step_seconds(self) -> float:
        """Compute time of one step without waiting for a core. There must be steps."""
        return max(0.0, self.compute - self.waiting_for_core) / self.steps

    @property
    def waiting_for_core(self) -> float:
        """`run_delay`, 0 where the system does not report it."""
        return self.run_delay or 0.0

    @property
    def idle(self) -> float:
        """Time neither running, nor ready to run, nor in a span that waits for data or a disk."""
        waits = sum(self.spans.get(name, 0.0) for name in WAITING_SPANS)
        return max(0.0, self.monotonic - self.process - self.waiting_for_core - waits)


def snapshots(events: Sequence[dict[str, Any]], place: str) -> list[Snapshot]:
    """The snapshots among the events of the journal `place`. Raises UserError when one is damaged."""
    return [validated(Snapshot, event, place) for event in events if "spans" in event]


def log_intervals(attempt: Sequence[Snapshot]) -> list[LogInterval]:
    """The time between consecutive snapshots of one process."""
    return [_interval(before, after) for before, after in pairwise(attempt)]


def by_span(values: dict[str, float]) -> dict[str, float]:
    """Seconds by span name, without the unit in the name."""
    return {name.removesuffix("_seconds"): seconds for name, seconds in values.items()}


def _interval(before: Snapshot, after: Snapshot) -> LogInterval:
    old, new = before.clock, after.clock
    spans = by_span(before.spans)
    return LogInterval(
        steps=after.done - before.done,
        monotonic=new.monotonic - old.monotonic,
        process=new.process - old.process,
        run_delay=None if old.run_delay is None or new.run_delay is None else new.run_delay - old.run_delay,
        suspended=(new.boottime - new.monotonic) - (old.boottime - old.monotonic),
        spans={name: seconds - spans.get(name, 0.0) for name, seconds in by_span(after.spans).items()},
    )
