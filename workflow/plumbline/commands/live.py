"""The live view: a table that is drawn again in a terminal, lines now and then in a file."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from plumbline.commands.progress import (
    StudyProgress,
    duration,
    ending,
    has_failed_since,
    last_line,
    log_of,
    remaining_of_all,
    study_progress,
    target_name,
)
from plumbline.core.plan.live_status import StatusReader
from plumbline.core.plan.status import TargetStatus

SECONDS = {True: 1.0, False: 5.0}
"""Shortest time between two looks, in a terminal and in a file."""
SHARE = 0.01
"""Of a core: the most that looking may take. With very many trials it looks less often, but not this seldom:"""
MOST_SECONDS = 30.0
SHOWN = 10
"""Targets that are listed: of those that run, and of those that failed or were interrupted."""
FIRST_COLUMN = 12
STAMP = re.compile(r"^\d{4}-\S+ ERROR ")
"""What stands before an error in a log."""
BAR = 16


class LiveView:
    """Shows how far the targets of `studies` are, and of others while they run.

    since: a target that failed before this moment, in seconds since 1970, is one that waits.
    """

    def __init__(self, reader: StatusReader, results: Path, studies: Sequence[str], since: float = 0.0) -> None:
        self._reader, self._studies = reader, studies
        self.results = results
        self._has_failed = has_failed_since(since)
        self._began = time.time()
        self.found: list[TargetStatus] = []
        self._rows: list[StudyProgress] = []

    @property
    def failed(self) -> list[TargetStatus]:
        """The targets that have failed."""
        return [item for item in self.found if self._has_failed(item)]

    @property
    def is_done(self) -> bool:
        """Whether all targets of the studies that are asked for are done."""
        return all(row.is_done for row in self._rows if row.study in self._studies)

    def show_until(self, is_over: Callable[[float], bool], console: Console) -> None:
        """Looks and shows until `is_over`, which waits for as many seconds as it is given, says so."""
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
                self._loop(is_over, lambda: live.update(self._screen(), refresh=True), SECONDS[True])
        else:
            self._said: set[str] = set()
            self._loop(is_over, lambda: self._print_changes(console), SECONDS[False])

    def summary(self) -> list[str]:
        """A line for each study."""
        return [str(row) for row in self._rows]

    def _loop(self, is_over: Callable[[float], bool], show: Callable[[], None], seconds: float) -> None:
        pause = seconds  # after the first look, which alone opens everything
        self._look(show)
        while not is_over(pause):
            began = time.process_time()
            self._look(show)
            pause = min(max(seconds, (time.process_time() - began) / SHARE), MOST_SECONDS)
        self._look(show)

    def _look(self, show: Callable[[], None]) -> None:
        self.found = self._reader.read()
        rows = study_progress(self.found, self._has_failed, time.time())
        self._rows = [row for row in rows if row.study in self._studies or row.running or row.failed or row.interrupted]
        show()

    def _print_changes(self, console: Console) -> None:
        clock = time.strftime("%H:%M:%S")
        for line in self.summary():
            counts = line.partition(", ETA")[0]
            if counts not in self._said:
                self._said.add(counts)
                console.print(f"{clock} {line}", markup=False)
        for item in self.failed:
            name = target_name(item.target)
            if name not in self._said:
                self._said.add(name)
                console.print(
                    f"{clock} {ending(item)} {name}: {last_line(log_of(item.target, self.results))}", markup=False
                )

    def _screen(self) -> RenderableType:
        shown = {row.study for row in self._rows}
        eta = remaining_of_all(
            [item for item in self.found if item.target.study in shown], self._has_failed, time.time()
        )
        head = f"{self.results}/  {duration(time.time() - self._began)}"
        running = [item for item in self.found if item.state == "running"]
        parts: list[RenderableType] = [Text(head + ("" if self.is_done else f", ETA {eta}")), self._table()]
        parts += [self._running(item) for item in running[:SHOWN]]
        if len(running) > SHOWN:
            parts.append(Text(f"running      and {len(running) - SHOWN} more"))
        failed = self.failed
        for item in failed[-SHOWN:]:  # the reason on a line of its own, which the name does not push out of sight
            parts.append(Text(f"{ending(item):{FIRST_COLUMN}} {target_name(item.target)}", style="red"))
            line = STAMP.sub("", last_line(log_of(item.target, self.results)))
            parts.append(Text(f"{'':{FIRST_COLUMN}} {line}", style="red"))
        if len(failed) > SHOWN:
            parts.append(Text(f"{'':{FIRST_COLUMN}} and {len(failed) - SHOWN} more", style="red"))
        return Group(*(_in_one_line(part) for part in parts))

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("study", no_wrap=True, min_width=FIRST_COLUMN)
        table.add_column("trials", justify="right", no_wrap=True)
        table.add_column("", max_width=BAR)  # alone gives way in a narrow terminal
        broke_off = ["failed", "interrupted"] if any(row.interrupted for row in self._rows) else ["failed"]
        for heading in ("running", *broke_off, "other steps", "ETA"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self._rows:
            counts = (row.running, row.failed, row.interrupted)[: 1 + len(broke_off)]
            numbers = [str(count) if count else "·" for count in counts]
            bar = ProgressBar(total=max(row.trials, 1), completed=row.done, finished_style="green")
            eta = "done" if row.is_done else str(row.remaining)
            trials, steps = f"{row.done}/{row.trials}", f"{row.steps_done}/{row.steps}"
            table.add_row(row.study, trials, bar, *numbers, steps, eta)
        return table

    def _running(self, item: TargetStatus) -> Text:
        line = f"{'running':{FIRST_COLUMN}} {target_name(item.target)}"
        if item.fraction is not None:
            line += f": {item.fraction:.0%}"
        if item.eta_seconds is not None:
            line += f", ETA {duration(item.eta_seconds)}"
        return Text(line)


def _in_one_line(part: RenderableType) -> RenderableType:
    """Text that a narrow terminal cuts instead of wrapping it, so that the view keeps its height."""
    if isinstance(part, Text):
        part.no_wrap, part.overflow = True, "ellipsis"
    return part
