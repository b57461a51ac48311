"""Faults with real processes: each is seen, its rank is named, nothing is left running, and the next start resumes."""

import re
import signal
import time

import psutil
import pytest

from data_parallel.small import HEAD, MODEL, TRAINING, Trial, build_tokens, start_stage
from plumbline.core.run.progress import attempts, read_journal
from plumbline.data_parallel.ranks.board import State, read

WAIT_SECONDS = 60.0
"""Within which a fault must be seen, on whatever machine; on an idle one it takes a few seconds."""
INJECTED_STEP = 40


@pytest.fixture(scope="module")
def meta(tmp_path_factory):
    return build_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def undisturbed(meta, tmp_path_factory) -> str:
    """The digest of the weights of a trial that nothing happened to."""
    trial = Trial(meta, tmp_path_factory.mktemp("undisturbed"))
    assert trial.start().wait(120) == 0
    return trial.record["weights_sha256"]


@pytest.fixture
def trial(meta, tmp_path) -> Trial:
    return Trial(meta, tmp_path)


def wait_for_step(trial: Trial, rank: int, step: int = INJECTED_STEP) -> int:
    """Waits until the rank is that far and a checkpoint is there; its process."""
    began = time.monotonic()
    while time.monotonic() - began < 90:
        for one in read(trial.board, trial.world):
            is_there = one.rank == rank and one.state is State.RUNNING and one.step >= step
            if is_there and trial.checkpoints and psutil.pid_exists(one.pid):  # not one of the attempt before
                return one.pid
        time.sleep(0.005)
    raise AssertionError("the rank did not get that far")


def ended(stage, family: list[psutil.Process]) -> str:
    """What the stage said, which must end in time; nothing that it started is left."""
    _, said = stage.communicate(timeout=WAIT_SECONDS)
    _, alive = psutil.wait_procs(family, timeout=WAIT_SECONDS)
    assert alive == []
    return said


def resumed(trial: Trial) -> dict:
    assert trial.start().wait(120) == 0
    return trial.record


FAULTS = [
    (signal.SIGKILL, 0, "ended in step .* without a word"),
    (signal.SIGKILL, 1, "ended in step .* without a word"),
    (signal.SIGUSR1, 1, "failed in step .*: ZeroDivisionError: injected"),
    (signal.SIGUSR2, 1, "ended in step .* without a word"),
    (signal.SIGSTOP, 0, "was stopped in step"),
]


def test_each_rank_that_fails_is_named_and_the_last_start_ends_as_if_nothing_had_happened(trial, undisturbed):
    for count, (number, rank, message) in enumerate(FAULTS):
        stage = trial.start()
        pid = wait_for_step(trial, rank, INJECTED_STEP + 50 * count)
        family = psutil.Process(stage.pid).children(recursive=True)
        psutil.Process(pid).send_signal(number)
        said = ended(stage, family)
        assert stage.returncode == 1
        assert re.search(rf"ERROR rank {rank}\b.*{message}", said), said
        assert "Traceback" not in said
        if "failed in step" in said:
            assert f"see {trial.board / 'torchrun.log'}; run again to resume" in said
            assert "ZeroDivisionError: injected" in (trial.board / "torchrun.log").read_text()
        assert not (trial.folder / "record.json").exists()
    record = resumed(trial)
    assert record["restarts"] == len(FAULTS)
    assert record["weights_sha256"] == undisturbed


def test_a_rank_that_hangs_and_a_full_disk_are_named_and_the_last_start_ends_as_if_nothing_had_happened(
    trial, undisturbed
):
    faults = {signal.SIGRTMIN: "1 hangs in step .*: no rank got on for", signal.SIGRTMIN + 1: "0: .*no space left on"}
    patience, trial.timeout = trial.timeout, 10.0  # long enough for a busy machine to get on in
    for count, (number, message) in enumerate(faults.items()):
        stage = trial.start()
        pid = wait_for_step(trial, int(message[0]), INJECTED_STEP + 100 * count)
        family = psutil.Process(stage.pid).children(recursive=True)
        psutil.Process(pid).send_signal(number)
        said = ended(stage, family)
        assert re.search(rf"ERROR rank {message}", said), said
    trial.timeout = patience
    record = resumed(trial)
    assert (record["restarts"], record["weights_sha256"]) == (2, undisturbed)


def test_progress_is_in_the_journal_and_goes_on_where_a_killed_trial_was(trial):
    stage = trial.start()
    psutil.Process(wait_for_step(trial, 1)).kill()
    stage.communicate(timeout=WAIT_SECONDS)
    resumed(trial)
    first, second = attempts(read_journal(trial.log.with_suffix(".jsonl")))
    shown = [[event for event in events if "total" in event] for events in (first, second)]
    assert shown[1]
    assert {(event["total"], event["unit"]) for events in shown for event in events} == {(24 * 16, "steps")}
    done = [event["done"] for event in shown[1]]
    saved = int(re.search(r"resumed after step (\d+)", (trial.board / "torchrun.log").read_text()).group(1))
    assert done == sorted(done)
    assert saved <= done[0]
    assert done[-1] == 24 * 16
    assert all(event["eta_seconds"] is not None for event in shown[1] if event["done"] > done[0])


def test_loss_that_is_not_finite_is_the_outcome_diverged(trial):
    stage = trial.start()
    psutil.Process(wait_for_step(trial, 1)).send_signal(signal.SIGRTMIN + 2)
    assert stage.wait(60) == 0
    assert (trial.record["outcome"], trial.record["epochs"]) == ("diverged", [])
    assert re.search(r"the loss of epoch \d+ is not finite", trial.record["message"])


def test_signal_saves_at_the_next_step_and_the_next_start_goes_on_from_there(trial, undisturbed):
    """A cluster that preempts a job signals all of its processes at once."""
    saved: list[int] = []
    for number, to_all in [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, False)]:
        stage = trial.start()
        wait_for_step(trial, 0, INJECTED_STEP + 80 * len(saved))
        family = psutil.Process(stage.pid).children(recursive=True)
        step = max(one.step for one in read(trial.board, 2))
        for process in [psutil.Process(stage.pid), *(family if to_all else [])]:
            process.send_signal(number)
        said = ended(stage, family)
        assert stage.returncode == 130
        assert "interrupted; run again to resume" in said
        log = (trial.board / "torchrun.log").read_text()
        *before, last = sorted({int(one) for one in re.findall(r"asked to stop: saved after step (\d+)", log)})
        assert before == saved  # the next attempt keeps what the one before it said
        assert last >= step
        saved.append(last)
    record = resumed(trial)
    log = (trial.board / "torchrun.log").read_text()
    assert all(f"resumed after step {step}" in log for step in saved)
    assert record["weights_sha256"] == undisturbed


def test_signal_in_validation_stops_every_rank_there_and_the_next_start_validates_again(trial, undisturbed):
    stage = trial.start()
    pid = wait_for_step(trial, 1)
    family = psutil.Process(stage.pid).children(recursive=True)
    psutil.Process(pid).send_signal(signal.SIGRTMIN + 3)
    assert "interrupted; run again to resume" in ended(stage, family)
    saved = int(
        re.search(r"asked to stop: saved after step (\d+)", (trial.board / "torchrun.log").read_text()).group(1)
    )
    assert saved % 24 == 0  # the end of an epoch of 95 sequences, 4 a step
    assert not (trial.folder / f"rank0_results_epoch{saved // 24 - 1}.json").exists()
    assert resumed(trial)["weights_sha256"] == undisturbed


LONG = 1_000_000
SPECS = {
    "equality": {"methods": ["ddp"], "steps": LONG},
    "comparison": {"comparison": {"seconds": LONG}, "scalings": ["strong"], "device": "cpu"},
}


@pytest.mark.parametrize("name", SPECS)
def test_signal_ends_the_proof_and_the_comparison_without_a_record(meta, tmp_path, name):
    spec = HEAD | {"model": MODEL.model_dump(), "training": TRAINING.model_dump(), "worlds": [1, 2], "seed": 0}
    stage = start_stage(name, spec | SPECS[name], meta, tmp_path / "a.json")
    began, ranks = time.monotonic(), []
    while len(ranks) < 2 or all(one.state is State.STARTING for one in ranks):
        if time.monotonic() - began > WAIT_SECONDS:
            stage.kill()
            pytest.fail("the ranks do not run")
        time.sleep(0.05)
        ranks = read(tmp_path / ".a.ranks", 2)
    family = psutil.Process(stage.pid).children(recursive=True)
    stage.send_signal(signal.SIGTERM)
    assert "interrupted; run again to resume" in ended(stage, family)
    assert stage.returncode == 130
    assert not (tmp_path / "a.json").exists()


def test_killed_parent_leaves_no_orphan(trial, undisturbed):
    for victim in ("stage", "torchrun"):
        stage = trial.start()
        wait_for_step(trial, 1, INJECTED_STEP + 100 * (victim == "torchrun"))
        family = psutil.Process(stage.pid).children(recursive=True)
        agent = next(process for process in family if "plumbline.data_parallel.ranks.torchrun" in process.cmdline())
        (psutil.Process(stage.pid) if victim == "stage" else agent).kill()
        said = ended(stage, family)
        assert stage.returncode != 0
        assert ("torchrun was ended by SIGKILL" in said) == (victim == "torchrun")
    assert resumed(trial)["weights_sha256"] == undisturbed


def test_torn_checkpoint_is_named_with_the_fix_and_without_it_the_trial_starts_from_the_beginning(trial, undisturbed):
    stage = trial.start()
    psutil.Process(wait_for_step(trial, 1)).kill()
    stage.communicate(timeout=60)
    (path,) = trial.checkpoints
    path.write_bytes(path.read_bytes()[:1000])
    stage = trial.start()
    _, said = stage.communicate(timeout=60)
    assert re.search(r"ERROR rank \d: .*is not a checkpoint .*delete it to start from the beginning", said), said
    path.unlink()
    record = resumed(trial)
    assert (record["restarts"], record["weights_sha256"]) == (0, undisturbed)
