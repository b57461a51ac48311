import csv
import json
import math

import pytest
import torch
from safetensors.torch import load_file

from lr_sweep.training_runs import MODEL, spec_of, write_tokens
from plumbline.core.errors import UserError
from plumbline.core.measure.spans import SPANS
from plumbline.core.run import progress
from plumbline.core.run.progress import read_journal
from plumbline.lr_sweep.record import TrialRecord
from plumbline.lr_sweep.train import COLUMNS, train
from plumbline.lr_sweep.training.model import Transformer


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("train") / "tokens") / "meta.json"


@pytest.fixture(scope="module")
def trial(tokens, tmp_path_factory):
    output = tmp_path_factory.mktemp("trials") / "lr0.01-seed0" / "record.json"
    progress.append_to(output.with_name("journal.jsonl"))
    train(spec_of(), tokens, output, log_steps=4)
    progress.append_to(None)
    return output


def strict_json(path):
    def refuse(name):
        raise ValueError(f"{name} is not valid JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_record_holds_what_the_trial_found(trial):
    record = strict_json(trial)
    assert (record["trial"], record["rate"], record["seed"], record["outcome"]) == ("lr0.01-seed0", 0.01, 0, "ok")
    assert (record["steps"], record["tokens"]) == (24, 24 * 4 * 8)
    assert set(record["spans"]) == {f"{span}_seconds" for span in SPANS}
    assert sum(record["spans"].values()) == pytest.approx(record["wall_seconds"])
    training = sum(record["spans"][f"{span}_seconds"] for span in ("data_wait", "forward", "backward", "optimizer"))
    assert record["tokens_per_second"] == pytest.approx(record["tokens"] / training)
    assert len(record["train_losses"]) == len(record["grad_norms"]) == 24
    assert record["final_train_loss"] == pytest.approx(sum(record["train_losses"][-8:]) / 8)
    assert record["validation_windows"] == 6
    assert record["threads"] == torch.get_num_threads()


def test_metrics_have_the_columns_of_the_study_and_gaps_where_nothing_was_measured(trial):
    rows = list(csv.DictReader(trial.with_name("metrics.csv").open()))
    assert tuple(rows[0]) == COLUMNS
    assert [row["step"] for row in rows] == ["0", "4", "8", "12", "16", "20", "24"]
    assert [row["step"] for row in rows if row["val_loss"]] == ["0", "8", "16", "24"]
    assert rows[0]["train_loss"] == ""
    curve = strict_json(trial)["curve"]
    assert curve["step"] == [0, 8, 16, 24]
    assert curve["validation_loss"] == [float(row["val_loss"]) for row in rows if row["val_loss"]]
    assert curve["validation_loss"][-1] == strict_json(trial)["final_validation_loss"]


def test_weights_are_those_that_the_final_loss_was_measured_with(trial, tokens):
    from plumbline.lr_sweep.training.data import open_tokens, validation_batches

    model = Transformer(MODEL)
    model.load_state_dict(load_file(trial.with_name("weights.safetensors")))
    cpu = torch.device("cpu")
    batches = validation_batches(open_tokens(tokens.parent).validation, windows=6, batch=4, context=8, device=cpu)
    with torch.no_grad():
        total = sum(model(*batch, reduction="sum").item() for batch in batches)
    assert total / (6 * 8) == pytest.approx(strict_json(trial)["final_validation_loss"], rel=1e-6)


def test_journal_tells_steps_and_spans_while_the_trial_runs(trial):
    events = read_journal(trial.with_name("journal.jsonl"))
    told = [event for event in events if "spans" in event]
    assert len(told) == 7
    totals = [sum(event["spans"].values()) for event in told]
    assert totals == sorted(totals)
    assert told[-1]["tokens_per_step"] == 32
    assert {"boottime", "monotonic", "process", "pressure_cpu_avg10"} <= told[-1]["clock"].keys()
    assert [event for event in events if "done" in event][-1]["done"] == 24


def test_diverged_trial_is_a_record_with_its_numbers_as_strings(tokens, tmp_path):
    output = tmp_path / "lr1e+25-seed0" / "record.json"
    train(spec_of(rate=1e25), tokens, output)
    record = strict_json(output)
    assert (record["outcome"], record["class"]) == ("diverged", "diverged")
    assert "not finite" in record["message"]
    assert not math.isfinite(float(record["final_validation_loss"]))
    assert isinstance(record["final_validation_loss"], str)
    assert output.with_name("weights.safetensors").exists()


def test_trial_that_runs_out_of_memory_is_a_record_with_all_of_its_files(tokens, tmp_path):
    output = tmp_path / "lr0.01-seed0" / "record.json"
    train(spec_of(batch=10**13, fused="off", compile="off"), tokens, output)
    record = strict_json(output)
    assert record["outcome"] == "out_of_memory"
    assert "allocate" in record["message"]
    assert list(csv.DictReader(output.with_name("metrics.csv").open())) == []
    assert load_file(output.with_name("weights.safetensors")) == {}
    assert TrialRecord.read(output).curve is None


def test_corpus_with_more_tokens_than_the_model_is_refused(tokens, tmp_path):
    spec = spec_of()
    spec = spec.model_copy(update={"model": MODEL.model_copy(update={"vocabulary": 299})})
    with pytest.raises(UserError, match=r"meta\.json: the vocabulary has 300 tokens, but .*vocabulary is 299"):
        train(spec, tokens, tmp_path / "trial" / "record.json")


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_learning_rate_that_is_none_is_refused(tokens, tmp_path, rate):
    with pytest.raises(UserError, match="must be a finite number above zero"):
        train(spec_of(rate=rate), tokens, tmp_path / "trial" / "record.json")
