"""The whole `lr_sweep` study on a tiny model: extension of the grid, best model, diagnosis, nothing left to do."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from house import TINY, House, build, check_shown, kill_group
from plumbline.core.run.progress import read_journal

CONFIG = ("--configfile", "tiny.yaml")
ONE_TRIAL = TINY["lr_sweep"] | {"learning_rates": [0.004], "extend": False}
WASTEFUL = ONE_TRIAL | {"training": {"batch": 4, "steps": 200, "validate_every": 1, "validation_windows": 64}}


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> House:
    """A house in which the tiny sweep was run. Its grid of two rates holds neither the best one nor the edge."""
    house = build(tmp_path_factory.mktemp("swept") / "house", "lr_sweep")
    house.snakemake()
    return house


def test_rates_are_added_until_the_best_is_bracketed_and_one_diverged_or_the_limit_is_met(swept):
    asked = TINY["lr_sweep"]["learning_rates"]
    records = [json.loads(path.read_text()) for path in (swept.study / "trials").glob("*/record.json")]
    rates = sorted(record["rate"] for record in records)
    assert set(asked) < set(rates)
    decisions = [json.loads(path.read_text()) for path in sorted((swept.study / "rounds").iterdir())]
    assert sorted(rate for decision in decisions for rate in decision["add"]) == sorted(set(rates) - set(asked))
    assert any(record["outcome"] == "diverged" for record in records) or sum(rate > max(asked) for rate in rates) == 4


def test_the_table_of_trials_fits_the_terminal(swept):
    check_shown(swept)


def test_second_run_has_nothing_to_do(swept):
    assert "Nothing to be done" in swept.snakemake()


def test_best_model_loads_with_transformers_and_generates_text(swept):
    program = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "folder = sys.argv[1]\n"
        "model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)\n"
        "prompt = tokenizer('The function returns', return_tensors='pt')\n"
        "out = model.generate(**prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False)\n"
        "print(out.shape[1] - prompt['input_ids'].shape[1], tokenizer.decode(out[0]))"
    )
    command = [sys.executable, "-c", program, str(swept.study / "best_model")]
    done = subprocess.run(command, env=swept.environment(), capture_output=True, text=True, check=True)
    count, _, text = done.stdout.partition(" ")
    assert count == "8"
    assert "The function returns" in text


def test_deleted_trial_alone_runs_again_with_what_follows(swept):
    trial = swept.study / "trials" / "lr0.004-seed0" / "record.json"
    kept = trial.read_bytes()
    trial.unlink()
    waiting = swept.waiting()
    trial.write_bytes(kept)
    assert waiting["lr_sweep_train"] == 1
    assert waiting["lr_sweep_corpus"] == waiting["lr_sweep_tokens"] == 0


def test_diagnosis_of_a_finished_sweep_has_all_its_steps_and_seconds(swept):
    diagnosis = json.loads((swept.study / "diagnosis.json").read_text())
    progress, ledgers = diagnosis["progress"], diagnosis["ledger_seconds"]["trials"]
    records = {path.parent.name: json.loads(path.read_text()) for path in swept.study.glob("trials/*/record.json")}
    assert (progress["done"], progress["left"], progress["steps_percent"]) == (len(records), 0, 100.0)
    assert set(ledgers) == set(records)
    for name, record in records.items():
        events = read_journal(swept.study / "logs" / "train" / f"{name}.jsonl")
        assert sum(ledgers[name].values()) == pytest.approx(events[-1]["time"] - events[0]["time"], abs=0.01)
        assert all(ledgers[name][span.removesuffix("_seconds")] == spent for span, spent in record["spans"].items())


@pytest.fixture(scope="module")
def wasteful(tmp_path_factory) -> House:
    """A house in which a trial and the longer training validated at every step, on 16 times the tokens of a step."""
    house = build(tmp_path_factory.mktemp("wasteful") / "house", "lr_sweep")
    house.configure({"lr_sweep": WASTEFUL})
    house.snakemake("results/lr_sweep/diagnosis.json")
    return house


def test_diagnosis_names_what_wastes_the_time_of_a_real_trial(wasteful):
    diagnosis = json.loads(wasteful.plumbline("diagnose", "lr_sweep", "--json", *CONFIG, status=1))
    records = [json.loads(path.read_text()) for path in wasteful.study.glob("trials/*/record.json")]
    found = {cause["cause"]: cause for cause in diagnosis["causes"]}
    validating = sum(record["spans"]["validation_seconds"] for record in records)
    total = sum(sum(record["spans"].values()) for record in records)
    assert diagnosis["status"] == "slower_than_expected"
    assert validating > 0.5 * total
    assert found["frequent_validation"]["seconds_lost"] == pytest.approx(validating - 0.15 * total)
    assert diagnosis["expected"][0]["expected_tokens_per_second"] > 0
    at_the_end = json.loads((wasteful.study / "diagnosis.json").read_text())
    assert "frequent_validation" in {cause["cause"] for cause in at_the_end["causes"]}


def test_diagnosis_of_a_running_sweep_finds_the_stopped_process(wasteful):
    wasteful.configure({"lr_sweep": WASTEFUL | {"training": {"steps": 1_000_000}}})
    run = wasteful.start("results/lr_sweep/summary.csv")
    try:
        pid = _pid_of_the_trial(wasteful)
        os.kill(pid, signal.SIGSTOP)
        try:
            diagnosis = json.loads(wasteful.plumbline("diagnose", "lr_sweep", "--json", *CONFIG, status=1))
        finally:
            os.kill(pid, signal.SIGCONT)
    finally:
        kill_group(run)
    assert diagnosis["progress"]["running"] == 1
    stopped = next(cause for cause in diagnosis["causes"] if cause["cause"] == "stopped_process")
    assert stopped["advice"] == f"kill -CONT {pid}"


def _pid_of_the_trial(house: House) -> int:
    """Of the process that trains, once it has begun."""
    began, until = time.time(), time.monotonic() + 120
    while time.monotonic() < until:
        for journal in house.study.glob("logs/train/*.jsonl"):
            starts = [event for event in read_journal(journal) if event.get("event") == "start"]
            if starts and starts[-1]["time"] > began:
                return int(starts[-1]["pid"])
        time.sleep(0.1)
    raise TimeoutError(f"no trial in {house.study} has begun")
