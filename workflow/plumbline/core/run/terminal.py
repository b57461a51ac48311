"""What Snakemake prints of a run: one line a job, one line an error, and in the end what failed and how to go on.

Imported by the workflow alone; no stage knows Snakemake.
"""

import difflib
import itertools
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.logging import DefaultFilter, DefaultFormatter, LogEvent, get_event

from plumbline.core.errors import UserError
from plumbline.core.present.formatting import plural
from plumbline.core.run.stage import KILLED, error_in

NOISE = (
    *("Building DAG of jobs", "Using shell:", "Provided cores:", "Rules claiming more threads", "Conda environments:"),
    *("Singularity containers:", "Select jobs to execute", "Updating checkpoint dependencies", "DAG of jobs will be"),
    *("Job failed, going on", "Exiting because a job execution failed", "This was a dry-run", "The run involves"),
    *("Assuming unrestricted shared filesystem", "Reasons:", "Touching output file", "SLURM run ID:"),
)
"""How lines begin that a reader of one line a job has no use for; `--verbose` and `--printshellcmds` show them."""
SUBMITTED = " has been submitted with SLURM jobid "
"""In a second line for a job, which `.snakemake/log/` keeps."""
QUIET_EVENTS = frozenset({LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.RESOURCES_INFO, LogEvent.PROGRESS})
PLACE = ('  File "', "Wildcards:")
"""How lines begin that say where in the workflow an error was noticed."""
GO_ON = (
    "Fix the cause and start the same command again: it resumes, and finished targets are kept. Findings and figures"
    " wait for the trials that failed."
)
STOPPED = "Stopped. Start the same command again: it resumes, and finished targets are kept."
CONTROLLER_SECONDS = 10


class RefusedError(WorkflowError):
    """A user's mistake: printed as its one line, without the place in the workflow that noticed it."""


@contextmanager
def refusing() -> Iterator[None]:
    """A UserError ends Snakemake with one line."""
    try:
        yield
    except UserError as error:
        raise RefusedError(str(error)) from None


@dataclass(frozen=True)
class Failure:
    """A job that failed."""

    job: str
    reason: str
    logs: Sequence[str]


class Lines(DefaultFormatter):
    """Formats Snakemake's log records as lines, and keeps count of what is done and of what failed.

    detailed: print each job and error as Snakemake does, with its files and its command, as for `-p`; count as well.
    """

    def __init__(self, handler: logging.Handler, below: DefaultFormatter, *, detailed: bool, dryrun: bool) -> None:
        super().__init__(below.quiet, below.show_failed_logs)
        self.detailed, self.dryrun = detailed, dryrun
        self.done, self.total = 0, 0
        self.names: dict[int, str] = {}
        self.failures: list[Failure] = []
        self._counted = False
        self._handler = handler

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is worth a line. The first filter of the handler: it counts what `--quiet` hides, too."""
        event, values = get_event(record), record.__dict__
        if event == LogEvent.JOB_INFO:
            self.names[values["jobid"]] = job_name(values["rule_name"], values["wildcards"])
        elif event in (LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR):
            self.failures += self._failed(values)
        elif event == LogEvent.PROGRESS:
            self.done, self.total = values["done"], values["total"]
        elif event == LogEvent.RUN_INFO:
            self.total = values.get("stats", {}).get("total", self.total)
            again, self._counted = self._counted, True
            return again or not self.dryrun  # a dry run counts before and after its jobs; the last lines are read
        if self.detailed or (event == LogEvent.PROGRESS and self.done == self.total):
            return True
        self._handler.last_msg_was_job_info = True  # type: ignore[attr-defined]  # else a blank line precedes a job
        if event == LogEvent.ERROR and "CalledProcessError in file" in str(record.msg):
            return False  # the command of a job that failed, with its whole spec; the job's own error follows
        text = str(record.msg or "")
        return event not in QUIET_EVENTS and not text.startswith(NOISE) and SUBMITTED not in text

    def format_job_info(self, msg: dict[str, Any]) -> str:
        """`06:51:07 [12/190] ablation_train factor/all_layers/spectral`; in a dry run the job alone."""
        if self.detailed:
            return str(super().format_job_info(msg))
        name = self.names[msg["jobid"]]
        return name if self.dryrun else f"{time.strftime('%H:%M:%S')} [{self.done}/{self.total}] {name}"

    def format_job_error(self, msg: dict[str, Any]) -> str:
        """`06:51:09 FAILED ablation_train …: no space left on the device; results/…/spectral.log`."""
        if self.detailed:
            return str(super().format_job_error(msg))
        return self._failures_text(msg)

    def format_group_error(self, msg: dict[str, Any]) -> str:
        """A line for each job of the group."""
        if self.detailed:
            return str(super().format_group_error(msg))
        return self._failures_text(msg)

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; a user's mistake as its sentence alone."""
        text = str(super().format(record) or "")
        if get_event(record) == LogEvent.ERROR and RefusedError.__name__ in text:
            said = text.partition(RefusedError.__name__)[2].splitlines()[1:]
            return "\n".join(line.strip() for line in itertools.takewhile(lambda one: not one.startswith(PLACE), said))
        if self.failures and text.endswith("At least one job did not complete successfully."):
            return ""  # `summary` has said so
        return text

    def shorten(self, dry_run: Any) -> None:
        """Has `dry_run`, the class of Snakemake's executor, log of a job what `format_job_info` prints, where it does.

        The rest, its files, resources and command, takes longer than all else in a dry run of many jobs.
        """

        def print_job(executor: Any, job: Any) -> None:
            for one in job.jobs if job.is_group() else [job]:
                executor.logger.info(None, extra=_named(one))

        if not self.detailed:
            dry_run.printjob = print_job

    def summary(self) -> str:
        """What failed, where its log is, and how to go on."""
        if not self.failures:
            return STOPPED
        waiting = self.total - self.done - len(self.failures)
        more = f", and {plural(waiting, 'job')} did not start" if waiting > 0 else ""
        failed = "".join(f"\n  {one.job}: {one.reason}\n    {' '.join(one.logs)}" for one in self.failures)
        return f"{plural(len(self.failures), 'job')} failed{more}:{failed}\n{GO_ON}"

    def _failures_text(self, values: Mapping[str, Any]) -> str:
        now = time.strftime("%H:%M:%S")
        return "\n".join(f"{now} FAILED {one.job}: {one.reason}; {' '.join(one.logs)}" for one in self._failed(values))

    def _failed(self, values: Mapping[str, Any]) -> Iterator[Failure]:
        for job in values.get("job_error_info", [values]):
            name, logs = self.names.get(job["jobid"], str(job["rule_name"])), [str(path) for path in job["log"]]
            yield Failure(name, next(filter(None, map(error_in, map(Path, logs))), KILLED), logs)


def _named(job: Any) -> dict[str, Any]:
    """The fields of Snakemake's record of a job that its name is made of."""
    return {
        "event": LogEvent.JOB_INFO,
        "jobid": job.jobid,
        "rule_name": job.rule.name,
        "wildcards": job.wildcards_dict,
    }


def job_name(rule: str, wildcards: Mapping[str, str]) -> str:
    """`ablation_train factor/all_layers/spectral`: the rule, and the target's name as `plumbline status` prints it."""
    return f"{rule} {'/'.join(map(str, wildcards.values()))}".strip()


def one_line_per_job(logger: logging.Logger) -> Lines | None:
    """Has the handler that Snakemake prints with print a line a job; None where a plugin prints instead."""
    for handler in logger.handlers:
        below, settings = handler.formatter, [one for one in handler.filters if isinstance(one, DefaultFilter)]
        if handler.name == "DefaultStreamHandler" and isinstance(below, DefaultFormatter) and settings:
            (shown,) = settings
            lines = Lines(handler, below, detailed=shown.printshellcmds or shown.verbose, dryrun=shown.dryrun)
            handler.setFormatter(lines)
            handler.filters.insert(0, lines)  # before Snakemake's own, so that it counts what is not printed too
            return lines
    return None


def unknown_target(asked: Iterable[str], targets: Sequence[str], files: Sequence[str]) -> RefusedError | None:
    """The refusal of the first of `asked` that is no target and no file, with the nearest one; None: all are known."""
    for name in asked:
        if name not in targets and name not in files and not Path(name).exists():
            found = difflib.get_close_matches(name, [*targets, *files], n=1)
            meant = f"; did you mean {found[0]}?" if found else "."
            return RefusedError(f"there is no target {name}{meant} Targets are {', '.join(targets)}, and their files")
    return None


def check_executor(executor: str, cores: int | None) -> None:
    """Raises RefusedError for a run that no job could start in: no core, or Slurm where there is none."""
    if executor == "local" and cores is not None and cores < 1:
        raise RefusedError(f"--cores {cores}: no job can run without a core; use --cores all, or a number from 1")
    if executor == "slurm":
        problem = None
        if not shutil.which("sbatch"):
            problem = "the command sbatch is not found"
        elif shutil.which("scontrol") and (said := _ping()):
            problem = f"scontrol ping says {said}"
        if problem:
            raise RefusedError(
                f"no Slurm cluster can be reached from {os.uname().nodename}: {problem}; start on a login node of the"
                " cluster, or leave --profile profiles/slurm out to run here"
            )


def _ping() -> str:
    """The last line of what `scontrol ping` says where no controller answers; empty where one does."""
    try:
        done = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=CONTROLLER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"nothing within {CONTROLLER_SECONDS} s"
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or [f"status {done.returncode}"]
    return "" if done.returncode == 0 else said[-1].removeprefix("scontrol: ")
