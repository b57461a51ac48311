import csv
import json
import multiprocessing
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lr_sweep.training_runs import NOT_REPEATABLE, run_trial, spec_of, write_tokens
from plumbline.core.errors import UserError
from plumbline.core.run.checkpoint import checkpoint_path
from plumbline.lr_sweep.train import train
from plumbline.lr_sweep.training import loop

PATHS = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3] / "workflow")]
KILLS, KILLS_A_TRIAL, MOST_TRIALS = 20, 7, 20
NOT_COMPARED = (
    "seconds",
    "started",
    "machine",
    "spans",
    "wall_seconds",
    "tokens_per_second",
    "peak_rss_bytes",
    "restarts",
)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("checkpoint") / "tokens") / "meta.json"


def contents(folder: Path):
    """Weights, metrics and record of a trial, without what depends on time."""
    record = json.loads((folder / "record.json").read_text())
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return (
        (folder / "weights.safetensors").read_bytes(),
        [{name: value for name, value in row.items() if name not in NOT_REPEATABLE} for row in rows],
        {name: value for name, value in record.items() if name not in (*NOT_COMPARED, "precision", "trial")},
    )


@pytest.fixture(scope="module")
def processes():
    """Starts trials in separate processes, forked from one that has already imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["plumbline.lr_sweep.train"])
    with pytest.MonkeyPatch.context() as patch:  # the server does not take this process's sys.path
        patch.setenv("PYTHONPATH", ":".join(PATHS))
        patch.setenv("OMP_NUM_THREADS", "1")  # as the study's rules do
        first = context.Process(target=int)  # waits for torch's import
        first.start()
        first.join()
    return context


def test_trial_killed_at_random_moments_ends_with_the_bits_of_an_uninterrupted_one(tokens, tmp_path, processes):
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    kills = 0
    for trial in range(MOST_TRIALS):
        spec = spec_of(seed=trial, steps=40)
        whole, broken = tmp_path / f"whole{trial}" / "record.json", tmp_path / f"broken{trial}" / "record.json"

        def start(output, spec=spec):
            arguments = (str(tokens), str(output), spec.model_dump_json(), 4)
            process = processes.Process(target=run_trial, args=arguments)
            process.start()
            return process

        began = time.monotonic()
        finish(start(whole))
        uninterrupted = time.monotonic() - began
        for _ in range(KILLS_A_TRIAL):
            process = start(broken)
            process.join(moments.uniform(0.1, 0.8) * uninterrupted)
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += 1
        finish(start(broken))
        assert contents(broken.parent) == contents(whole.parent), f"differs after kills with seed {seed}"
        left = sorted(path.name for path in broken.parent.iterdir())
        assert left == ["metrics.csv", "record.json", "weights.safetensors"]
        if kills >= KILLS:
            return
    raise AssertionError(f"only {kills} kills in {MOST_TRIALS} trials")


def finish(process):
    process.join()
    assert process.exitcode == 0


def interrupted(tokens, output, spec, monkeypatch, after=2):
    """Stops a trial right after its n-th checkpoint; returns the checkpoint's path."""
    save, count = loop.save_checkpoint, 0

    def save_and_stop(*args):
        nonlocal count
        save(*args)
        count += 1
        if count == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(spec, tokens, output, 1e9, 7)
    return checkpoint_path(output, spec.model_dump_json())


def test_resumed_trial_says_that_it_was_restarted_and_counts_all_of_its_time(tokens, tmp_path, monkeypatch):
    output = tmp_path / "trial" / "record.json"
    interrupted(tokens, output, spec_of(), monkeypatch)
    train(spec_of(), tokens, output)
    record = json.loads(output.read_text())
    assert (record["restarts"], record["steps"]) == (1, 24)
    rows = list(csv.DictReader(output.with_name("metrics.csv").open()))
    elapsed = [float(row["elapsed_time"]) for row in rows]
    assert elapsed == sorted(elapsed)
    assert sum(record["spans"].values()) == pytest.approx(record["wall_seconds"])


def test_changed_spec_starts_from_the_beginning_and_leaves_no_checkpoint_of_the_old_one(tokens, tmp_path, monkeypatch):
    output = tmp_path / "trial" / "record.json"
    old = interrupted(tokens, output, spec_of(), monkeypatch)
    train(spec_of(rate=0.5), tokens, output)
    assert json.loads(output.read_text())["restarts"] == 0
    assert not old.exists()


def test_damaged_checkpoint_is_refused_and_leaves_no_record(tokens, tmp_path, monkeypatch):
    output = tmp_path / "trial" / "record.json"
    path = interrupted(tokens, output, spec_of(), monkeypatch)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"checkpoint: is not a checkpoint \(\w+\); delete it"):
        train(spec_of(), tokens, output)
    assert not output.exists()


def test_a_training_process_imports_torch_and_nothing_else_that_is_slow(tokens, tmp_path):
    command = (
        "import sys; from lr_sweep.training_runs import run_trial; run_trial(*sys.argv[1:4], 100); print(*sys.modules)"
    )
    arguments = [str(tokens), str(tmp_path / "trial" / "record.json"), spec_of().model_dump_json()]
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        env={"PYTHONPATH": ":".join(PATHS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    slow = {"transformers", "tokenizers", "pandas", "datasets", "sklearn", "matplotlib", "scipy", "torch._dynamo"}
    assert not loaded & slow
