"""Makes several targets of one stage, one after another, each in a process forked from one that has imported the stage.

    python -m plumbline.core.run.batch plumbline.ablation.train --device cpu <<< '[{"spec": …, "inputs": …, …}, …]'

A target whose records are there, made from its spec and after what it reads, is left alone. One that fails stops none
of the others. Snakemake deletes all outputs of a job when it begins and when it fails, so links keep what is current
until the batch is done: what was there when the run began (`core.plan.batch.keeping`), and what the batch has made.
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

from plumbline.core.plan.batch import forget, is_older, is_there, keep
from plumbline.core.plan.canonical import canonical
from plumbline.core.run.orphans import signal_at_death_of_parent
from plumbline.core.run.stage import KILLED, Stage, error_in, log_to_stderr

log = logging.getLogger("plumbline")
Job = dict[str, Any]
"""A target's `spec`, its `inputs` by name, its `outputs`, each a record, and its `log`; see `core.plan.batch`."""


def main() -> NoReturn:
    """Makes the targets that stdin describes, and exits with 1 where one failed."""
    log_to_stderr()
    name, options, jobs = sys.argv[1], sys.argv[2:], json.load(sys.stdin)
    missing = [job for job in jobs if not _is_done(job)]
    module = importlib.import_module(name)
    if import_ahead := getattr(module, "import_ahead", None):
        import_ahead()
    try:
        logs = [job["log"] for job in missing if not _make(module, job, options)]
    except KeyboardInterrupt:
        sys.exit(130)  # the process that works on a target was interrupted too, and has said so
    if logs:
        said = "; ".join(f"{path}: {error_in(Path(path)) or KILLED}" for path in logs)
        log.error("%d of %d failed: %s", len(logs), len(jobs), said)
        sys.exit(1)
    for job in jobs:
        forget(map(Path, job["outputs"]))
    log.info("all %d are done", len(jobs))
    sys.exit()


def _is_done(job: Job) -> bool:
    records = [Path(name) for name in job["outputs"]]
    return is_there(records, canonical(job["spec"])) and not is_older(records, job["inputs"])


def _make(module: ModuleType, job: Job, options: Sequence[str]) -> bool:
    """Runs the stage on one target in a process of its own. Returns whether it succeeded."""
    (stage,) = (value for value in vars(module).values() if isinstance(value, Stage))
    process = multiprocessing.get_context("fork").Process(target=_run, args=(stage, job, options))
    process.start()
    process.join()
    if process.exitcode != 0:
        return False
    keep(map(Path, job["outputs"]))
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


if __name__ == "__main__":
    main()
