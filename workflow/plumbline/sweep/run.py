"""Stage `sweep.run`: one trial, a command or a function with one point's values and one seed."""

import json
import logging
import re
import shlex
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.run.orphans import ending_orphans
from plumbline.core.run.outcome import Outcome, OutcomeError, recording_as
from plumbline.core.run.plain_spec import PlainSpec
from plumbline.core.run.processes import (
    ChildFault,
    Member,
    TimeUpError,
    oom_kill_count,
    run_group,
)
from plumbline.core.run.stage import stage
from plumbline.sweep.naming import folder_name, point_name
from plumbline.sweep.trial import attempt
from plumbline.sweep.trial.command import Value, filled_in
from plumbline.sweep.trial.folder import beside, prepared
from plumbline.sweep.trial.leavings import METRICS, is_finite, read_curves, read_metrics
from plumbline.sweep.trial.plain_record import record_json

log = logging.getLogger("plumbline")

SHOWN = 20
"""Lines of a failed command's output that the log repeats."""
OUT_OF_MEMORY = re.compile(r"^(\w+\.)*(OutOfMemoryError|MemoryError)\b")
"""The last line of a Python program that ran out of memory."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Where the trial leaves its curves."""

    file: str = "metrics.jsonl"
    step: str = "step"


@dataclass(frozen=True, kw_only=True)
class RunSpec(PlainSpec):
    """What decides one trial."""

    sweep: str
    command: str | None
    function: str | None
    files: str
    """Digest of the files that the config names as code."""
    inputs_fingerprint: list[str]
    curves: Curves
    metrics: list[str]
    """What metrics.json must hold."""
    budget: str | None
    """Name of the parameter that halving raises, so that a trial goes on in the folder of the one before."""
    parameters: dict[str, Value]
    seed: int
    stopped_at_seconds: float | None
    """The time limit that an earlier attempt met; the trial runs again because today's is longer."""


@stage
def run(spec: RunSpec, runs: Path, output: Path, timeout_seconds: float = 0.0, threads: int = 1) -> None:
    """Runs the trial in its folder below `runs`, which stays between attempts, and writes its record to `output`.

    timeout_seconds: 0 sets no limit. What the command prints goes to <folder>.output.log. Raises UserError with
    its last line when it ends with another status than 0, or leaves no metrics.
    """
    point, folder = point_name(spec.parameters), folder_of(spec, runs)
    values = spec.to_json()
    if moved := prepared(folder, values):
        log.warning("%s: belonged to other settings or code; moved to %s", folder, moved)
    (folder / METRICS).unlink(missing_ok=True)  # an earlier attempt's would pass for this one's
    attempt.note(output, spec.stopped_at_seconds, None)
    trial = f"{spec.sweep}/{point}/{spec.seed}"
    with recording_as(record_json, output, trial=trial, spec=values) as findings:
        findings |= {"sweep": spec.sweep, "point": point, "parameters": spec.parameters, "seed": spec.seed}
        try:
            _execute(shell_command(spec, folder), folder, timeout_seconds or None, threads)
        except TimeUpError:
            attempt.note(output, spec.stopped_at_seconds, timeout_seconds)
            raise OutcomeError(Outcome.TIMEOUT, f"took longer than {timeout_seconds:g} s") from None
        findings["metrics"], findings["info"] = read_metrics(folder, spec.metrics)
        findings["curves"] = read_curves(folder / spec.curves.file, spec.curves.step)
        for name in spec.metrics:
            if not is_finite(value := findings["metrics"][name]):
                raise OutcomeError(Outcome.DIVERGED, f"{name} is {value}")


def folder_of(spec: RunSpec, runs: Path) -> Path:
    """The folder that the command runs in; absolute, since the command may change its directory."""
    return (runs / folder_name(spec.parameters, spec.budget) / f"seed{spec.seed}").resolve()


def shell_command(spec: RunSpec, folder: Path) -> str:
    """The line that the shell runs."""
    if spec.command is not None:
        return filled_in(spec.command, {**spec.parameters, "seed": spec.seed, "folder": str(folder)})
    assert spec.function is not None
    parts = [sys.executable, "-m", "plumbline.sweep.trial.call", spec.function]
    parts += ["--settings", json.dumps(spec.parameters), "--seed", str(spec.seed), "--folder", str(folder)]
    return shlex.join(parts)


def _execute(command: str, folder: Path, seconds: float | None, threads: int) -> None:
    """Runs `command` and waits for it; what it leaves running ends with it. Raises TimeUpError after `seconds`."""
    output, kills = beside(folder, "output.log"), oom_kill_count()
    output.unlink(missing_ok=True)
    log.info("%s", command)
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    shell = Member(
        work=["bash", "-o", "pipefail", "-c", command], name="the command", log=output, environment=environment
    )
    try:
        with ending_orphans():
            run_group([shell], seconds=seconds)
    except ChildFault as fault:
        lines = last_lines(output)
        for line in lines:
            log.error("| %s", line)
        said = lines[-1] if lines else "it printed nothing"
        if "status 137" in str(fault) and oom_kill_count() > kills:
            raise OutcomeError(Outcome.OUT_OF_MEMORY, "the kernel ended it for lack of memory") from None
        if OUT_OF_MEMORY.match(said):
            raise OutcomeError(Outcome.OUT_OF_MEMORY, said[:500]) from None
        raise UserError(f"{str(fault).partition(';')[0]}: {said[:500]} (all of its output: {output})") from None


def last_lines(path: Path) -> list[str]:
    """The last lines of a command's output that are not empty; of a huge file, from its last megabyte."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 2**20))
        text = stream.read().decode(errors="replace")
    return list(deque((line.rstrip() for line in text.splitlines() if line.strip()), maxlen=SHOWN))


if __name__ == "__main__":
    run.main()
