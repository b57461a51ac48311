"""`plumbline compare --live`: trials of two folders run now, interleaved, each with its own code. Light to import."""

import json
import logging
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import plumbline
from plumbline.core.errors import UserError
from plumbline.core.measure.interleave import CONTROL, Candidate, Rounds, interleave, joined, rounds_per_process
from plumbline.core.present.formatting import plural
from plumbline.core.statistics.rounds import Verdict, verdict
from plumbline.throughput.analysis.compare import read_trials, same_model, trials_folder
from plumbline.throughput.measurement.settings import ComparisonSettings, EngineConfig, TrialTiming
from plumbline.throughput.record import TrialRecord

log = logging.getLogger("plumbline")
WORKER = "plumbline.throughput.live_worker"
FIRST, SECOND = "first", "second"


class CannotRunError(Exception):
    """A side that has no speed to compare, and why."""


class Worker:
    """A process that has loaded one side's candidate and times a call when it is asked to."""

    def __init__(self, folder: Path, trial: str, device: str, timeout: float) -> None:
        """Starts it, with the code of `folder`. A reply that takes `timeout` seconds counts as failed."""
        code = code_of(folder)
        path = os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")])
        self._timeout = timeout
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(folder.resolve()), trial, device],
            cwd=_worktree(folder) or Path.cwd(),
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # to which it gives its priority
        )

    def wait_until_loaded(self) -> None:
        """Raises CannotRunError when the candidate cannot run."""
        self._reply()

    def seconds(self) -> float:
        """Seconds of a call. Raises CannotRunError when it failed."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which its reply says
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return float(self._reply()["seconds"])

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], self._timeout)[0]:
            raise CannotRunError(f"no reply within {self._timeout:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise CannotRunError(f"its process ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if reply.get("error") is not None:
            raise CannotRunError(reply["error"])
        return reply


def code_of(folder: Path) -> Path:
    """The workflow/ of the worktree that holds `folder`, or the one of this code where there is none.

    Raises UserError when it is too old to take turns.
    """
    root = _worktree(folder)
    code = root / "workflow" if root else Path(plumbline.__file__).parents[1]
    if not (code / f"{WORKER.replace('.', '/')}.py").exists():
        raise UserError(f"compare: the code in {code} is too old for --live; update it, or leave out --live")
    return code


def compare_live(first: Path, second: Path, only: str, settings: ComparisonSettings, device: str) -> dict[str, Any]:
    """How fast the trials in `second` are against those of the same name in `first`, both measured now, as plain JSON.

    Both sides of a trial take turns in random order, each in a process of its own that runs its own worktree's code;
    the first runs twice a round (A/A). Both start again in each of `settings.processes`. Raises UserError when no trial
    whose name matches `only` succeeded in both folders with the same model.
    """
    folders = [trials_folder(folder) for folder in (first, second)]
    before, after = (read_trials(folder) for folder in folders)
    shared = [name for name in before if name in after and fnmatchcase(name, only)]
    ready = [name for name in shared if _comparable(before[name], after[name])]
    if not ready:
        raise UserError(f"compare: no trial that matches {only!r} succeeded in both folders with the same model")
    rows = [_row(folders, before[name], after[name], settings, device) for name in ready]
    return {
        "first": str(folders[0]),
        "second": str(folders[1]),
        "code": [str(code_of(folder)) for folder in folders],
        "counts": Counter(row["verdict"] for row in rows),
        "trials": rows,
        "left_out": [name for name in shared if name not in ready],
    }


def exit_status(comparison: dict[str, Any]) -> int:
    """1 when something is slower, 2 when nothing was decided, else 0."""
    counts = comparison["counts"]
    if counts[Verdict.SLOWER]:
        return 1
    return 0 if counts[Verdict.FASTER] or counts[Verdict.NO_DIFFERENCE] else 2


def summary_lines(comparison: dict[str, Any]) -> Iterator[str]:
    """The sentences below the table."""
    counts = comparison["counts"]
    text = ", ".join(f"{counts[name]} {name}" for name in (*Verdict, "unavailable") if counts[name])
    yield f"{plural(len(comparison['trials']), 'trial')} measured on both sides in turn: {text}."
    first, second = comparison["code"]
    if first == second:
        yield f"Both sides ran the code in {first}: only their models and settings can differ."
    else:
        yield f"The first ran the code in {first}, the second that in {second}."
    if names := comparison["left_out"]:
        yield f"Left out because they failed on one side or use different models: {', '.join(names)}."


def _worktree(folder: Path) -> Path | None:
    """The folder above `folder` that holds workflow/plumbline."""
    return next((above for above in folder.resolve().parents if (above / "workflow" / "plumbline").is_dir()), None)


def _comparable(first: TrialRecord, second: TrialRecord) -> bool:
    return first.ok and second.ok and same_model(first, second)


def _row(
    folders: Sequence[Path], first: TrialRecord, second: TrialRecord, settings: ComparisonSettings, device: str
) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": first.trial, "notes": list(_notes(first, second))}
    try:
        parts: list[Rounds] = []
        for process in range(settings.processes):
            parts.append(_interleaved(folders, first.trial, settings, device, _timeout(first), process))
            rounds = joined(parts, settings.processes, settings.precision)
            if rounds.precise:
                break
    except CannotRunError as error:
        return row | {"verdict": "unavailable", "notes": [*row["notes"], str(error)]}
    ratio, control = rounds.ratio(SECOND), rounds.ratio(CONTROL)
    found = {"verdict": verdict(ratio, control).value, "rounds": len(rounds.seconds), "processes": len(parts)}
    return row | found | {"ratio": ratio.as_json(), "control": control.as_json()}


def _interleaved(
    folders: Sequence[Path], trial: str, settings: ComparisonSettings, device: str, timeout: float, process: int
) -> Rounds:
    with ExitStack() as stack:
        workers = []
        for folder in folders:
            workers.append(Worker(folder, trial, device, timeout))
            stack.callback(workers[-1].close)
        for worker in workers:
            worker.wait_until_loaded()
        first, second = (
            Candidate(name=name, run=worker.seconds, warm=worker.seconds)
            for name, worker in zip((FIRST, SECOND), workers, strict=True)
        )
        return interleave(
            first,
            [second],
            seconds=settings.seconds / settings.processes,
            precision=settings.precision,
            min_rounds=rounds_per_process(settings.processes),
            seed=process,
        )


def _timeout(record: TrialRecord) -> float:
    """Seconds that a trial may take, as its spec says."""
    return float((record.spec.get("timing") or {}).get("timeout_seconds") or TrialTiming().timeout_seconds)


def _notes(first: TrialRecord, second: TrialRecord) -> Iterator[str]:
    for name in EngineConfig.model_fields:
        old, new = first.config_value(name), second.config_value(name)
        if old != new:
            yield f"{name} {old} → {new}"
