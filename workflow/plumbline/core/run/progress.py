"""How far a stage is: a line in its log, and JSON lines beside it that `plumbline status` reads."""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")
Event = TypeVar("Event", bound=Mapping[str, Any])
log = logging.getLogger("plumbline")

SECONDS_BETWEEN_LINES = 2.0
_sink: Path | None = None


def append_to(path: Path | None) -> None:
    """Names the JSON-lines file that this process appends its progress to; None for none."""
    global _sink
    _sink = path


def log_event(**fields: Any) -> None:
    """Appends one JSON line with a UTC timestamp to the progress file, if one is named."""
    if _sink is None:
        return
    _sink.parent.mkdir(parents=True, exist_ok=True)
    with _sink.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"time": time.time(), **fields}) + "\n")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The events in a journal; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events


def attempts(events: Iterable[Event]) -> list[list[Event]]:
    """The events of each process that worked on a target, first to last; events before any start are left out."""
    found: list[list[Event]] = []
    for event in events:
        if event.get("event") == "start":
            found.append([])
        if found:
            found[-1].append(event)
    return found


def lost_seconds(events: Iterable[dict[str, Any]]) -> float:
    """Seconds of the attempts on the same spec that were killed or failed before the last one, since one ended well."""
    found = attempts(events)
    lost = 0.0
    for attempt in reversed(found[:-1]):
        if attempt[-1].get("event") == "end" or attempt[0].get("spec") != found[-1][0].get("spec"):
            break
        lost += attempt[-1]["time"] - attempt[0]["time"]
    return lost


class Progress:
    """Counts work done and reports done / total, rate and ETA at most every two seconds, and at the end.

    `done` is where a resumed stage starts; the rate counts only what this process did.
    """

    def __init__(self, total: int, unit: str, done: int = 0) -> None:
        self.total, self.unit, self.done = total, unit, done
        self._first = done
        self._start = self._reported = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Counts `count` more units as done."""
        self.done += count
        if time.monotonic() - self._reported >= SECONDS_BETWEEN_LINES:
            self.report()

    def report(self) -> None:
        """Logs the line now."""
        self._reported = time.monotonic()
        elapsed = self._reported - self._start
        rate = (self.done - self._first) / elapsed if elapsed > 0 else 0.0
        eta = (self.total - self.done) / rate if rate > 0 else None
        log_event(done=self.done, total=self.total, unit=self.unit, rate_per_second=rate, eta_seconds=eta)
        share = 100 * self.done / self.total if self.total else 100.0
        remaining = "" if eta is None else f", ETA {eta:.0f} s"
        log.info("%d/%d %s (%.1f%%), %.3g/s%s", self.done, self.total, self.unit, share, rate, remaining)

    def __enter__(self) -> Self:
        log_event(done=self.done, total=self.total, unit=self.unit, rate_per_second=0.0, eta_seconds=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.report()


def track(items: Iterable[Item], total: int, unit: str) -> Iterator[Item]:
    """Yields `items`, reporting progress over `total` of them."""
    with Progress(total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
