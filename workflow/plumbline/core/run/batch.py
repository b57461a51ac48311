"""Makes several targets of one stage, one after another, each in a process forked from one that has imported the stage.

    python -m plumbline.core.run.batch plumbline.ablation.train --device cpu <<< '[{"spec": …, "inputs": …, …}, …]'

A target whose records are there, made from its spec, is left alone. One that fails stops none of the others. Until the
whole batch is done, links keep what is: Snakemake deletes all outputs of a job that fails.
"""

import importlib
import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from plumbline.core.errors import UserError
from plumbline.core.plan.canonical import canonical, digest
from plumbline.core.run.orphans import signal_at_death_of_parent
from plumbline.core.run.record import read_record
from plumbline.core.run.stage import Stage, log_to_stderr

log = logging.getLogger("plumbline")
Job = dict[str, Any]
"""A target's `spec`, its `inputs` by name, its `outputs`, each a record, and its `log`; see `core.plan.batch`."""


def main() -> NoReturn:
    """Makes the targets that stdin describes, and exits with 1 where one failed."""
    log_to_stderr()
    name, options, jobs = sys.argv[1], sys.argv[2:], json.load(sys.stdin)
    module = importlib.import_module(name)
    if import_ahead := getattr(module, "import_ahead", None):
        import_ahead()
    try:
        failed = [job["log"] for job in jobs if not (_is_there(job) or _make(module, job, options))]
    except KeyboardInterrupt:
        sys.exit(130)  # the process that works on a target was interrupted too, and has said so
    if failed:
        log.error("%d of %d failed: %s", len(failed), len(jobs), " ".join(failed))
        sys.exit(1)
    for job in jobs:
        for _, kept in _links(job):
            kept.unlink(missing_ok=True)
    log.info("all %d are done", len(jobs))
    sys.exit()


def _is_there(job: Job) -> bool:
    """Whether all records were made from today's spec, by an earlier run or by a batch that did not come to its end."""
    for output, kept in _links(job):
        if not output.exists() and kept.exists():
            output.parent.mkdir(parents=True, exist_ok=True)
            output.hardlink_to(kept)
    try:
        return all(read_record(output)["spec"] == job["spec"] for output, _ in _links(job))
    except UserError:
        return False


def _make(module: ModuleType, job: Job, options: Sequence[str]) -> bool:
    """Runs the stage on one target in a process of its own. Returns whether it succeeded."""
    (stage,) = (value for value in vars(module).values() if isinstance(value, Stage))
    process = multiprocessing.get_context("fork").Process(target=_run, args=(stage, job, options))
    process.start()
    process.join()
    if process.exitcode != 0:
        return False
    for output, kept in _links(job):
        kept.unlink(missing_ok=True)
        kept.hardlink_to(output)
    return True


def _run(stage: Stage[Any], job: Job, options: Sequence[str]) -> None:
    """What the stage's own command line would run."""
    signal_at_death_of_parent(signal.SIGKILL)
    path = Path(job["log"])
    path.parent.mkdir(parents=True, exist_ok=True)
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), sys.stderr.fileno())
    log.handlers.clear()
    taken = {name: files for name, files in job["inputs"].items() if name in signature(stage.function).parameters}
    inputs = [word for name, files in taken.items() for word in (f"--{name.replace('_', '-')}", *files)]
    fixed = ["--spec", canonical(job["spec"]), "--output", job["outputs"][0], "--log", job["log"]]
    sys.argv = [stage.name.rpartition(".")[2], *fixed, *inputs, *options]
    stage.main()


def _links(job: Job) -> list[tuple[Path, Path]]:
    """Each output, and the link that keeps it until the batch is done: hidden, named by the spec."""
    made_from = digest(canonical(job["spec"]))
    outputs = [Path(output) for output in job["outputs"]]
    return [(output, output.with_name(f".{output.name}.{made_from}.kept")) for output in outputs]


if __name__ == "__main__":
    main()
