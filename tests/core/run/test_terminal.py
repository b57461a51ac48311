"""What Snakemake prints of a run: a line a job, the error of one that failed, a refusal as its sentence."""

import io
import logging
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import WorkflowError, print_exception
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter, LogEvent
from snakemake.logging import logger as snakemake_logger

from plumbline.core.run import terminal
from plumbline.core.run.stage import LAST_BYTES, error_in


class Printed:
    """Snakemake's own handler, its logger, and what they have printed."""

    def __init__(self, **flags: bool) -> None:
        self.stream = io.StringIO()
        settings = {"dryrun": False, "verbose": False, "printshellcmds": False, "debug_dag": False} | flags
        self.handler = ColorizingTextHandler(
            stream=self.stream, formatter=DefaultFormatter(set(), True), filter=DefaultFilter(set(), **settings)
        )
        self.handler.name = "DefaultStreamHandler"
        self.logger = snakemake_logger
        self.logger.handlers, self.logger.propagate = [self.handler], False
        self.logger.setLevel(logging.INFO)
        lines = terminal.one_line_per_job(self.logger)
        assert lines is not None
        self.terminal = lines

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def job(self, jobid: int, rule: str, **wildcards: str) -> None:
        fields = {
            "input": ["a"],
            "output": ["b"],
            "log": ["c"],
            "benchmark": None,
            "reason": "missing",
            "resources": {},
        }
        fields |= {"priority": 0, "threads": 1, "local": False, "is_checkpoint": False, "rule_msg": None}
        event = {"event": LogEvent.JOB_INFO, "jobid": jobid, "rule_name": rule, "wildcards": wildcards}
        self.logger.info("job", extra=event | fields)
        self.logger.info("Shell command", extra={"event": LogEvent.SHELLCMD, "shellcmd": "run"})

    def done(self, done: int, total: int) -> None:
        self.logger.info("Finished jobid", extra={"event": LogEvent.JOB_FINISHED, "job_id": 1})
        self.logger.info(None, extra={"event": LogEvent.PROGRESS, "done": done, "total": total})

    def failed(self, jobid: int, rule: str, *logs: Path) -> None:
        fields = {
            "rule_msg": None,
            "input": [],
            "output": ["b"],
            "conda_env": None,
            "shellcmd": "--spec {1}",
            "aux": {},
        }
        event = {"event": LogEvent.JOB_ERROR, "jobid": jobid, "rule_name": rule, "log": list(map(str, logs))}
        self.logger.error("Error in rule", extra=event | fields)


@pytest.fixture(autouse=True)
def as_it_was():
    before = snakemake_logger.handlers, snakemake_logger.propagate, snakemake_logger.level
    yield
    snakemake_logger.handlers, snakemake_logger.propagate, snakemake_logger.level = before


def test_a_job_is_one_line_with_the_count_and_the_name_of_its_target():
    printed = Printed()
    printed.logger.info("Select jobs to execute...")
    printed.logger.info("Job 3 has been submitted with SLURM jobid 7 (log: x).")
    printed.job(3, "ablation_train", view="factor", layers="all_layers", representation="spectral")
    printed.done(1, 3)
    printed.job(4, "ablation_figures")
    first, second = printed.lines
    assert first.endswith(" [0/0] ablation_train factor/all_layers/spectral")
    assert second.endswith(" [1/3] ablation_figures")


def test_a_dry_run_has_a_line_a_job_and_counts_them_once_at_the_end():
    printed = Printed(dryrun=True)
    count = {"event": LogEvent.RUN_INFO, "stats": {"total": 1}}
    printed.logger.info("Job stats: 1", extra=count)
    printed.job(3, "lr_sweep_corpus")
    printed.logger.info("Job stats: 1", extra=count)
    assert printed.lines == ["lr_sweep_corpus", "Job stats: 1"]


def dry_run(printed: Printed) -> type:
    """The class of an executor that prints a job as Snakemake's does, and puts what it logs into `printed`."""

    class DryRun:
        logger = printed.logger

        def printjob(self, job):
            printed.job(job.jobid, job.rule.name, **job.wildcards_dict)

    printed.terminal.shorten(DryRun)
    return DryRun


def planned(jobid: int, trial: str) -> SimpleNamespace:
    """A job as Snakemake hands it to an executor."""
    rule = SimpleNamespace(name="lr_sweep_train")
    return SimpleNamespace(jobid=jobid, rule=rule, wildcards_dict={"trial": trial}, is_group=lambda: False)


def test_a_dry_run_prints_each_job_of_a_group():
    printed = Printed(dryrun=True)
    group = SimpleNamespace(jobs=[planned(3, "a"), planned(4, "b")], is_group=lambda: True)
    dry_run(printed)().printjob(group)
    assert printed.lines == ["lr_sweep_train a", "lr_sweep_train b"]


@pytest.mark.parametrize("asked", [{}, {"printshellcmds": True}])
def test_a_dry_run_asks_no_more_of_a_job_than_it_prints(asked):
    printed = Printed(dryrun=True, **asked)
    dry_run(printed)().printjob(planned(3, "lr0.1-seed0"))
    if asked:
        assert "    output: b" in printed.lines
    else:
        assert printed.lines == ["lr_sweep_train lr0.1-seed0"]


@pytest.mark.parametrize("flag", ["printshellcmds", "verbose"])
def test_whoever_asks_for_more_sees_what_snakemake_prints(flag):
    printed = Printed(**{flag: True})
    printed.job(3, "lr_sweep_train", trial="lr0.1-seed0")
    text = "\n".join(printed.lines)
    assert "    output: b\n    log: c" in text
    assert "wildcards: trial=lr0.1-seed0" in text


def test_a_job_that_fails_is_named_with_its_error_and_log_at_once_and_again_at_the_end(tmp_path):
    printed = Printed()
    log = tmp_path / "train.log"
    log.write_text("2026-11-27T06:00:00.000Z INFO train started\n2026-11-27T06:00:01.000Z ERROR no space left\n")
    printed.job(3, "lr_sweep_train", trial="lr0.1-seed0")
    printed.done(2, 5)
    printed.failed(3, "lr_sweep_train", log)
    assert printed.lines[-1].endswith(f" FAILED lr_sweep_train lr0.1-seed0: no space left; {log}")
    said = printed.terminal.summary()
    assert said.startswith("1 job failed, and 2 jobs did not start:")
    assert f"lr_sweep_train lr0.1-seed0: no space left\n    {log}\n" in said
    assert said.endswith(terminal.GO_ON)


def test_a_stopped_run_says_how_to_go_on():
    assert "Start the same command again" in Printed().terminal.summary()


def test_what_is_not_printed_is_counted():
    printed = Printed()
    printed.handler.setLevel(logging.INFO)
    printed.handler.filters.append(lambda record: False)
    printed.job(3, "lr_sweep_train", trial="a")
    printed.failed(3, "lr_sweep_train")
    assert printed.lines == []
    assert [failure.job for failure in printed.terminal.failures] == ["lr_sweep_train a"]


def test_jobs_of_a_group_that_failed_are_named_each():
    printed = Printed()
    jobs = [{"rule_name": "sweep_run", "jobid": number, "output": [], "log": []} for number in (1, 2)]
    event = {"event": LogEvent.GROUP_ERROR, "groupid": "g", "aux_logs": [], "job_error_info": jobs}
    printed.logger.error("Error in group", extra=event)
    assert len(printed.lines) == len(printed.terminal.failures) == 2


STARTED = "2026-11-27T06:00:00.000Z INFO train started\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (STARTED + "2026-11-27T06:00:01.000Z ERROR first\n2026-11-27T06:00:01.000Z ERROR last\n", "last"),
        (STARTED + "Traceback (most recent call last):\n  File x\nValueError: no shape\n\n", "ValueError: no shape"),
        (STARTED + "2026-11-27T06:00:01.000Z INFO 1/2 steps\n", None),
        (STARTED + "2026-11-27T06:00:01.000Z ERROR of an earlier attempt\n" + STARTED, None),
        ("2026-11-27T06:00:01.000Z ERROR before the start\n", "before the start"),
        ("", None),
    ],
)  # fmt: skip
def test_the_error_of_a_log_is_that_of_the_last_attempt(tmp_path, text, error):
    (tmp_path / "a.log").write_text(text)
    assert error_in(tmp_path / "a.log") == error
    assert error_in(tmp_path / "missing.log") is None


def test_only_the_end_of_a_log_is_read(tmp_path):
    log = tmp_path / "a.log"
    log.write_bytes(b"\xff" * 10 * LAST_BYTES + b"\n2026-11-27T06:00:01.000Z ERROR at the end\n")
    assert error_in(log) == "at the end"


def test_a_refusal_is_its_sentence_without_a_place_in_the_workflow():
    printed = Printed()
    try:
        raise terminal.RefusedError("config: seed: not a number")
    except WorkflowError as error:
        print_exception(error, {__file__: {number: number for number in range(500)}})
    assert printed.lines == ["config: seed: not a number"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("abblation", "no target abblation; did you mean ablation? Targets are all, ablation, and their files"),
        ("results/a/sumary.csv", "did you mean results/a/summary.csv?"),
        ("zzz", "there is no target zzz. Targets are all"),
    ],
)  # fmt: skip
def test_an_unknown_target_is_named_with_the_nearest_one(asked, said):
    error = terminal.unknown_target(["all", asked], ["all", "ablation"], ["results/a/summary.csv"])
    assert said in str(error)


def test_targets_and_files_that_are_there_are_known():
    assert terminal.unknown_target(["all", "results/a", __file__], ["all"], ["results/a"]) is None


def test_a_run_without_cores_is_refused():
    with pytest.raises(terminal.RefusedError, match="--cores 0: no job can run without a core; use --cores all"):
        terminal.check_executor("local", 0)
    terminal.check_executor("dryrun", 0)
    terminal.check_executor("local", 1)


@pytest.mark.parametrize(
    ("programs", "problem"),
    [
        ({}, "the command sbatch is not found"),
        ({"sbatch": "", "scontrol": "echo 'scontrol: fatal: gone' >&2; exit 1"}, "scontrol ping says fatal: gone"),
        ({"sbatch": "", "scontrol": "exit 0"}, None),
    ],
)  # fmt: skip
def test_slurm_without_a_cluster_is_refused(tmp_path, monkeypatch, programs, problem):
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(terminal.RefusedError, match=problem) if problem else nullcontext():
        terminal.check_executor("slurm", None)
