"""What trials say of themselves, running or finished: their journals and records, read only."""

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
from plumbline.core.run.record import read_record

State = Literal["done", "running", "interrupted", "failed", "waiting"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Between two looks at the clocks in one process. All in seconds."""

    steps: float
    monotonic: float
    process: float
    """CPU time of all threads."""
    run_delay: float | None
    """The main thread was ready to run and no core was free; None where the system does not tell."""
    suspended: float
    spans: Mapping[str, float]

    @property
    def compute(self) -> float:
        """Forward, backward, optimizer."""
        return sum(self.spans.get(name, 0.0) for name in COMPUTE_SPANS)

    @property
    def step_seconds(self) -> float:
        """Of one step's computing, without waiting for a core; there must be steps."""
        return max(0.0, self.compute - self.waiting_for_core) / self.steps

    @property
    def waiting_for_core(self) -> float:
        """`run_delay`; where the system does not tell it, nothing is assumed."""
        return self.run_delay or 0.0

    @property
    def idle(self) -> float:
        """Neither running, nor ready to run, nor in a span that waits for data or a disk."""
        waits = sum(self.spans.get(name, 0.0) for name in ("data_wait", "checkpoint", "logging"))
        return max(0.0, self.monotonic - self.process - self.waiting_for_core - waits)


@dataclass(frozen=True, kw_only=True)
class TrialEvidence:
    """One trial, as far as it is."""

    name: str
    state: State
    done: int
    total: int
    tokens_per_step: int
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    spans: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the training loop, restarts included, by `SPANS`."""
    intervals: tuple[Interval, ...] = ()
    began: float | None = None
    """Time of day, in seconds, of its first start."""
    ended: float | None = None
    """Of its last sign of life."""
    wall: float = 0.0
    """Seconds by the clock on the wall, over all its processes, suspension and start included."""
    threads: int = 1
    threads_at_once: float = 1.0
    """Threads of all trials that ran while this one did, itself included, averaged over its time."""
    dtype: str = "float32"
    device: str = "cpu"
    switches: Mapping[str, bool] = field(default_factory=dict)
    """Whether it ran with bf16, tf32, compile, fused; without an entry where it has not come to say so."""
    compiler: Mapping[str, int] = field(default_factory=dict)
    """Graph breaks and recompilations of a compiled run."""
    pressure_percent: float | None = None
    """Mean over its time of the system's CPU pressure."""
    silent_seconds: float = 0.0
    """Of a running trial: since its last sign of life."""
    process_status: str | None = None
    """Of a running trial on this machine: as psutil names it."""
    pid: int | None = None
    is_here: bool = True
    """Whether it ran on this machine."""

    @property
    def training_seconds(self) -> float:
        """All spans: the time of the training loop."""
        return sum(self.spans.values())

    @property
    def compute_seconds(self) -> float:
        """Forward, backward, optimizer."""
        return sum(self.spans.get(name, 0.0) for name in COMPUTE_SPANS)

    @property
    def run_delay_seconds(self) -> float:
        """Ready to run, and no core was free."""
        return sum(interval.waiting_for_core for interval in self.intervals)

    @property
    def tokens_per_second(self) -> float | None:
        """Over the whole training loop so far."""
        seconds = self.training_seconds
        return self.done * self.tokens_per_step / seconds if seconds > 0 and self.done else None

    def rate(self, intervals: Sequence[Interval]) -> float | None:
        """Tokens a second over `intervals`."""
        seconds = sum(interval.monotonic for interval in intervals)
        return sum(interval.steps for interval in intervals) * self.tokens_per_step / seconds if seconds > 0 else None

    def chose(self, feature: str) -> bool:
        """Whether the run used `feature`: bf16, tf32, compile, fused. Before it says so, whether that was asked for."""
        return self.switches.get(feature, self.asked(feature) == "on")

    def asked(self, feature: str) -> str | None:
        """What the settings say of `feature`: auto, on, off."""
        return self.training.get("precision" if feature == "bf16" else feature)

    def with_switch(self, feature: str, on: bool) -> "TrialEvidence":
        """This trial as it would be with `feature` on or off."""
        return replace(self, switches={**self.switches, feature: on})

    def with_batch(self, batch: int) -> "TrialEvidence":
        """This trial as it would be with another batch."""
        return replace(self, training={**self.training, "batch": batch})

    @property
    def is_stopped(self) -> bool:
        """Whether its process is stopped now."""
        return self.process_status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


def read_trials(study: Path, names: Sequence[str] | None = None) -> list[TrialEvidence]:
    """The trials `names` of the study folder (None: all that left a trace there), with how many ran at once."""
    if names is None:
        traces = [path.parent.name for path in study.glob("trials/*/record.json")]
        traces += [path.stem for path in study.glob("logs/train/*.jsonl")]
        names = sorted(set(traces))
    return with_company([read_trial(study, name) for name in names])


def read_trial(study: Path, name: str) -> TrialEvidence:
    """The trial `name` of the study folder, from its journal and, where it is finished, its record."""
    events = read_journal(study / "logs" / "train" / f"{name}.jsonl")
    path = study / "trials" / name / "record.json"
    record = read_record(path) if path.exists() else None
    if record is None and not any(event.get("event") == "start" for event in events):
        return TrialEvidence(name=name, state="waiting", done=0, total=0, tokens_per_step=0)
    return from_events(name, events, record)


def from_events(
    name: str, events: Sequence[Mapping[str, Any]], record: Mapping[str, Any] | None, now: float | None = None
) -> TrialEvidence:
    """A trial's evidence from the events of its journal and its record, None while it has none."""
    now = time.time() if now is None else now
    lives = attempts(events)
    start = lives[-1][0] if lives else {}
    spec = (record or start).get("spec") or {}
    model, training = spec.get("model", {}), spec.get("training", {})
    looks = [event for event in events if "spans" in event]
    last = looks[-1] if looks else {}
    counts = [event for event in events if "done" in event]
    done = int(record["steps"]) if record else int(counts[-1]["done"]) if counts else 0
    times = [event["time"] for event in events]
    state = _state(events, record)
    seen = record or {}
    here = _is_here(start, record)
    found = seen.get("precision") or last.get("precision") or {}
    return TrialEvidence(
        name=name,
        state=state,
        done=done,
        total=int(training.get("steps", done)),
        tokens_per_step=int(last.get("tokens_per_step") or training.get("batch", 0) * model.get("context", 0)),
        model=model,
        training=training,
        spans=_spans(seen.get("spans") or last.get("spans") or {}),
        intervals=tuple(_intervals(lives)),
        began=times[0] if times else None,
        ended=times[-1] if times else None,
        wall=sum(life[-1]["time"] - life[0]["time"] for life in lives) if events else float(seen.get("seconds", 0.0)),
        threads=int(last.get("threads") or seen.get("threads") or 1),
        dtype=str(last.get("dtype") or seen.get("dtype") or "float32"),
        device=str(last.get("device") or seen.get("device") or "cpu"),
        switches={switch: bool(finding["chosen"]) for switch, finding in found.items()},
        compiler=seen.get("compiler") or last.get("compiler") or {},
        pressure_percent=_pressure(looks),
        silent_seconds=now - times[-1] if state == "running" and times else 0.0,
        process_status=process_status(start) if state == "running" and here else None,
        pid=start.get("pid"),
        is_here=here,
    )


def with_company(trials: Sequence[TrialEvidence]) -> list[TrialEvidence]:
    """`trials`, each told how many threads of all of them ran while it did."""
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


def _spans(values: Mapping[str, Any]) -> dict[str, float]:
    return {key.removesuffix("_seconds"): float(value) for key, value in values.items()}


def _intervals(lives: Sequence[Sequence[Mapping[str, Any]]]) -> list[Interval]:
    """Between consecutive looks at the clocks; none spans a restart."""
    found: list[Interval] = []
    for life in lives:
        looks = [event for event in life if "spans" in event and "clock" in event]
        steps = _steps_at(life, looks)
        pairs = zip(looks, looks[1:], steps, steps[1:], strict=False)
        found += [_interval(old, new, after - before) for old, new, before, after in pairs]
    return found


def _steps_at(life: Sequence[Mapping[str, Any]], looks: Sequence[Mapping[str, Any]]) -> list[float]:
    """The step of each look. One that does not say its own stands at an even share of those counted in its life."""
    if all("done" in look for look in looks):
        return [float(look["done"]) for look in looks]
    counts = [event for event in life if "done" in event]
    if not counts:
        return [0.0] * len(looks)
    first, last = counts[0], counts[-1]
    since = [look for look in looks if look["time"] > first["time"]]
    counted = sum(look["time"] <= last["time"] for look in since)
    each = (last["done"] - first["done"]) / counted if counted else 0.0
    before = len(looks) - len(since)
    return [first["done"] + each * max(0, index - before + 1) for index in range(len(looks))]


def _interval(first: Mapping[str, Any], last: Mapping[str, Any], steps: float) -> Interval:
    old, new = first["clock"], last["clock"]
    delays = old.get("run_delay"), new.get("run_delay")
    spans_before = _spans(first["spans"])
    return Interval(
        steps=steps,
        monotonic=new["monotonic"] - old["monotonic"],
        process=new["process"] - old["process"],
        run_delay=None if delays[0] is None or delays[1] is None else delays[1] - delays[0],
        suspended=(new["boottime"] - new["monotonic"]) - (old["boottime"] - old["monotonic"]),
        spans={name: value - spans_before.get(name, 0.0) for name, value in _spans(last["spans"]).items()},
    )


def _pressure(looks: Sequence[Mapping[str, Any]]) -> float | None:
    values = [look.get("clock", {}).get("pressure_cpu_avg10") for look in looks]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _state(events: Sequence[Mapping[str, Any]], record: Mapping[str, Any] | None) -> State:
    if is_running(events):
        return "running"
    if record is not None:
        return "done"
    return "failed" if events and events[-1].get("event") == "failed" else "interrupted"


def _is_here(start: Mapping[str, Any], record: Mapping[str, Any] | None) -> bool:
    """Whether it ran on this machine: by the record's host name, else by the boot that its journal names."""
    if record is not None and "hostname" in record.get("machine", {}):
        return bool(record["machine"]["hostname"] == socket.gethostname())
    return is_this_boot(start)
