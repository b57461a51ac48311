"""What a trial's journal and record say about it, whether it is running or finished. Read only."""

import math
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from plumbline.core.measure.spans import COMPUTE_SPANS
from plumbline.core.run.liveness import is_running, is_this_boot, process_status
from plumbline.core.run.progress import attempts, read_journal
from plumbline.core.settings import validated
from plumbline.lr_sweep.diagnosis.journal import LogInterval, Snapshot, by_span, log_intervals, snapshots
from plumbline.lr_sweep.record import TrialRecord
from plumbline.lr_sweep.settings import ModelSettings, TrainingSettings

State = Literal["done", "running", "interrupted", "failed", "waiting"]


@dataclass(frozen=True, kw_only=True)
class TrialEvidence:
    """Everything known about one trial so far."""

    name: str
    state: State
    done: int = 0
    """Steps trained."""
    total: int = 0
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    spans: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the training loop by `SPANS`, restarts included."""
    intervals: tuple[LogInterval, ...] = ()
    began: float | None = None
    """Unix time of its first start."""
    ended: float | None = None
    """Unix time of its last event."""
    wall: float = 0.0
    """Wall-clock seconds of all its processes, including start-up and suspension."""
    threads: int = 1
    threads_at_once: float = 1.0
    """Threads of all trials that ran at the same time, including this one, averaged over its time."""
    dtype: str = "float32"
    device: str = "cpu"
    switches: Mapping[str, bool] = field(default_factory=dict)
    """Whether it ran with bf16, tf32, compile, fused; no entry until the trial has decided."""
    compiler: Mapping[str, int] = field(default_factory=dict)
    """Graph breaks and recompilations of a compiled run."""
    pressure_percent: float | None = None
    """The system's CPU pressure, averaged over the trial's time."""
    silent_seconds: float = 0.0
    """Seconds since the last event of a running trial."""
    process_status: str | None = None
    """psutil's status of a trial that is running on this machine."""
    pid: int | None = None
    is_local: bool = True
    """Whether it ran on this machine."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimizer step."""
        return self.training.batch * self.model.context

    @property
    def training_seconds(self) -> float:
        """Time of the training loop: all spans."""
        return sum(self.spans.values())

    @property
    def compute_seconds(self) -> float:
        """Forward, backward and optimizer."""
        return sum(self.spans.get(name, 0.0) for name in COMPUTE_SPANS)

    @property
    def run_delay_seconds(self) -> float:
        """Time ready to run with no core free."""
        return sum(interval.waiting_for_core for interval in self.intervals)

    @property
    def tokens_per_second(self) -> float | None:
        """Speed over the whole training loop so far."""
        seconds = self.training_seconds
        return self.done * self.tokens_per_step / seconds if seconds > 0 and self.done else None

    def speed_over(self, intervals: Sequence[LogInterval]) -> float | None:
        """Tokens per second over `intervals`."""
        seconds = sum(interval.monotonic for interval in intervals)
        return sum(interval.steps for interval in intervals) * self.tokens_per_step / seconds if seconds > 0 else None

    def uses(self, switch: str) -> bool:
        """Whether the run uses bf16, tf32, compile or fused; until it has decided, whether that is set to `on`."""
        return self.switches.get(switch, self.setting(switch) == "on")

    def setting(self, switch: str) -> str:
        """The setting of the switch: auto, on, off."""
        return str(getattr(self.training, "precision" if switch == "bf16" else switch))

    def with_switch(self, switch: str, on: bool) -> "TrialEvidence":
        """This trial with `switch` on or off."""
        return replace(self, switches={**self.switches, switch: on})

    def with_batch(self, batch: int) -> "TrialEvidence":
        """This trial with another batch size."""
        return replace(self, training=self.training.model_copy(update={"batch": batch}))

    @property
    def is_stopped(self) -> bool:
        """Whether its process is stopped right now."""
        return self.process_status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


def read_trials(study: Path, names: Sequence[str] | None = None) -> list[TrialEvidence]:
    """The trials `names` of the study folder; None: all that have a record or a journal there."""
    if names is None:
        found = [path.parent.name for path in study.glob("trials/*/record.json")]
        found += [path.stem for path in study.glob("logs/train/*.jsonl")]
        names = sorted(set(found))
    return with_concurrency([read_trial(study, name) for name in names])


def read_trial(study: Path, name: str) -> TrialEvidence:
    """The trial `name` of the study folder, from its journal and, once it is finished, its record."""
    journal, path = study / "logs" / "train" / f"{name}.jsonl", study / "trials" / name / "record.json"
    return from_events(name, read_journal(journal), TrialRecord.read(path) if path.exists() else None, str(journal))


def from_events(
    name: str, events: Sequence[dict[str, Any]], record: TrialRecord | None, place: str = "journal"
) -> TrialEvidence:
    """The evidence in a trial's journal and record; the record is None while there is none. place: for messages."""
    runs = attempts(events)
    if record is None and not runs:
        return TrialEvidence(name=name, state="waiting")
    start = runs[-1][0] if runs else {}
    spec = record.spec if record else start.get("spec") or {}
    training = validated(TrainingSettings, spec.get("training", {}), f"{place}: training")
    by_attempt = [snapshots(run, place) for run in runs]
    all_snapshots = [snapshot for attempt in by_attempt for snapshot in attempt]
    counts = [int(event["done"]) for event in events if "done" in event]
    latest = record if record and record.trained else all_snapshots[-1] if all_snapshots else None
    state, local = _state(events, record), _is_local(start, record)
    evidence = TrialEvidence(
        name=name,
        state=state,
        done=(record and record.steps) or (counts[-1] if counts else 0),
        total=training.steps,
        model=validated(ModelSettings, spec.get("model", {}), f"{place}: model"),
        training=training,
        intervals=tuple(interval for attempt in by_attempt for interval in log_intervals(attempt)),
        began=events[0]["time"] if events else None,
        ended=events[-1]["time"] if events else None,
        wall=sum(run[-1]["time"] - run[0]["time"] for run in runs) if events else record.seconds if record else 0.0,
        pressure_percent=_pressure(all_snapshots),
        silent_seconds=time.time() - events[-1]["time"] if state == "running" else 0.0,
        process_status=process_status(start) if state == "running" and local else None,
        pid=start.get("pid"),
        is_local=local,
    )
    if latest is None:
        return evidence
    return replace(
        evidence,
        spans=by_span(latest.spans),
        threads=latest.threads or 1,
        dtype=latest.dtype or "float32",
        device=latest.device or "cpu",
        switches={switch: decision.chosen for switch, decision in latest.precision.items()},
        compiler=latest.compiler,
    )


def with_concurrency(trials: Sequence[TrialEvidence]) -> list[TrialEvidence]:
    """`trials`, each with the number of threads of all trials that ran at the same time."""
    lives = [(trial.began, trial.ended, trial.threads) for trial in trials]
    found = []
    for trial in trials:
        if trial.began is None or trial.ended is None or trial.ended <= trial.began:
            found.append(replace(trial, threads_at_once=float(trial.threads)))
            continue
        shared = sum(
            threads * max(0.0, min(end, trial.ended) - max(begin, trial.began))
            for begin, end, threads in lives
            if begin is not None and end is not None
        )
        found.append(replace(trial, threads_at_once=shared / (trial.ended - trial.began)))
    return found


def _pressure(found: Sequence[Snapshot]) -> float | None:
    values = [snapshot.clock.pressure_cpu_avg10 for snapshot in found]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _state(events: Sequence[Mapping[str, Any]], record: TrialRecord | None) -> State:
    if is_running(events):
        return "running"
    if record is not None:
        return "done"
    return "failed" if events and events[-1].get("event") == "failed" else "interrupted"


def _is_local(start: Mapping[str, Any], record: TrialRecord | None) -> bool:
    """Whether it ran on this machine, by the host name in the record or the boot id in the journal."""
    if record is not None and "hostname" in record.machine:
        return bool(record.machine["hostname"] == socket.gethostname())
    return is_this_boot(start)
