"""The statuses of targets again and again, at the cost of what changed in between: for a live view."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from plumbline.core.plan.provenance import read_contents
from plumbline.core.plan.status import TargetStatus, running_status, target_status
from plumbline.core.plan.target import Target
from plumbline.core.run.progress import read_journal

Stamp = tuple[int, int] | None
"""Time and size of a file; None where there is none."""


class StatusReader:
    """Reads statuses as `target_statuses` does. Files that did not change since the last reading are not opened.

    Why a stale target is stale may be an earlier reading's answer: an input that has been rebuilt since is still named.
    """

    def __init__(self, plan: Callable[[], Sequence[Target]], results: Path) -> None:
        """plan: gives the targets; it is asked again once one of them is done that adds some."""
        self._plan, self._results = plan, results
        self._decided: set[str] = set()
        self._follow_plan()

    def read(self) -> list[TargetStatus]:
        """The status of each target now."""
        found = self._read_all()
        while (decided := _decided(found)) != self._decided:
            self._decided = decided
            self._follow_plan()
            found = self._read_all()
        return found

    def _follow_plan(self) -> None:
        self._targets = self._plan()
        self._files = [(str(self._results / t.study / t.journal), str(t.file(self._results))) for t in self._targets]
        self._seen: dict[int, tuple[Any, ...]] = {}
        self._found: dict[int, TargetStatus] = {}
        self._journals: dict[int, LastAttempt] = {}

    def _read_all(self) -> list[TargetStatus]:
        read_contents(self._targets, self._results)
        for target, (journal, output) in zip(self._targets, self._files, strict=True):
            key, known = id(target), self._found.get(id(target))
            seen = (_stamp(journal), _stamp(output), *(content.sha256 for content in target.contents))
            if known is None or known.state == "running" or seen != self._seen[key]:
                self._seen[key] = seen
                self._found[key] = self._read(target, journal)
        return [self._found[id(target)] for target in self._targets]

    def _read(self, target: Target, journal: str) -> TargetStatus:
        if attempt := self._journals.get(id(target)):
            if running := running_status(target, attempt.events()):
                return running
            del self._journals[id(target)]
        upstream = [self._found[id(need)] for need in target.needs if id(need) in self._found]
        status = target_status(target, self._results, upstream, read_journal(Path(journal)))
        if status.state == "running":
            self._journals[id(target)] = LastAttempt(Path(journal))
        return status


class LastAttempt:
    """The last attempt in a journal that grows: each line is read once."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0
        self._events: list[dict[str, Any]] = []

    def events(self) -> list[dict[str, Any]]:
        """Of the last attempt, as it is now: its start, its last progress and its last event."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._place)
                whole, newline, _ = stream.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._place += len(whole) + len(newline)
        for line in whole.splitlines():
            try:
                self._add(json.loads(line))
            except json.JSONDecodeError:  # a kill cut it short
                continue
        return self._events

    def _add(self, event: dict[str, Any]) -> None:
        if event.get("event") == "start":
            self._events = [event]
        elif self._events:
            start, *rest = self._events
            progress = [earlier for earlier in rest if earlier.get("total")][-1:] if not event.get("total") else []
            self._events = [start, *progress, event]


def _decided(found: Iterable[TargetStatus]) -> set[str]:
    """The targets that are done and have added others to the plan."""
    return {status.target.output for status in found if status.target.adds_targets and status.state == "done"}


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116  (a Path for each of thousands of files takes longer than the call)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
