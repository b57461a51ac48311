"""The whole `lr_sweep` study on a tiny model: extension of the grid, best model, diagnosis, nothing left to do."""

import json
import subprocess
import sys

import pytest

from house import TINY, House, build
from plumbline.lr_sweep.diagnosis.assessment import EXIT_STATUS


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


def test_diagnosis_names_expected_speed_and_where_the_time_went(swept):
    diagnosis = json.loads((swept.study / "diagnosis.json").read_text())
    assert diagnosis["status"] in EXIT_STATUS
    assert diagnosis["study"] == "lr_sweep"
