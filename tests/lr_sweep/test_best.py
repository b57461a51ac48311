import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lr_sweep.sweep_records import trial, unfinished
from lr_sweep.training_runs import MODEL, VOCABULARY, spec_of, write_tokens
from merging import merge_fields
from plumbline.core.errors import UserError
from plumbline.core.files import write_json
from plumbline.lr_sweep.analysis.sweep import analyse, sweep_of
from plumbline.lr_sweep.best import BestSpec, best, pick
from plumbline.lr_sweep.record import TrialRecord, read_trials
from plumbline.lr_sweep.train import train


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A byte-level BPE of the model's vocabulary."""
    folder = tmp_path_factory.mktemp("tokenizer")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["the quick brown fox jumps over the lazy dog, again and again"] * 9, trainer)
    made.save(str(folder / "tokenizer.json"))
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("best") / "tokens") / "meta.json"


@pytest.fixture(scope="module")
def trials(tokens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials")
    paths = []
    for rate in (0.001, 0.02, 1e25):
        for seed in (0, 1):
            paths.append(folder / f"lr{rate:g}-seed{seed}" / "record.json")
            train(spec_of(rate=rate, seed=seed), tokens, paths[-1])
    return paths


@pytest.fixture(scope="module")
def folder(trials, tokenizer, tmp_path_factory):
    output = tmp_path_factory.mktemp("results") / "best_model" / "manifest.json"
    spec = BestSpec(**merge_fields(map(TrialRecord.read, trials)))
    best(spec, trials, tokenizer, output)
    return output.parent


def record(folder, rate, seed, loss, kind="converged"):
    found = trial(rate, seed, kind, loss=loss) if kind else unfinished(rate, seed)
    path = folder / found.trial / "record.json"
    path.parent.mkdir()
    write_json(path, found.to_json())
    return path


def test_best_trial_is_the_best_seed_of_the_rate_that_is_best_on_average(tmp_path):
    lucky = [record(tmp_path, 0.1, 0, 1.0), record(tmp_path, 0.1, 1, 3.0)]
    steady = [record(tmp_path, 0.2, 0, 1.9), record(tmp_path, 0.2, 1, 1.7)]
    assert pick([*lucky, *steady]) == (steady[1], pytest.approx(1.8))


@pytest.mark.parametrize("kind", ["plateaued", "diverged"])
def test_rate_that_is_not_good_for_every_seed_is_passed_over(tmp_path, kind):
    broken = [record(tmp_path, 0.1, 0, 1.0), record(tmp_path, 0.1, 1, 1.1, kind)]
    steady = [record(tmp_path, 0.2, 0, 1.9)]
    assert pick([*broken, *steady])[0] == steady[0]


def test_best_rate_is_the_one_that_the_analysis_names_when_a_seed_ran_out_of_memory(tmp_path):
    short = [record(tmp_path, 0.1, 0, 1.0), record(tmp_path, 0.1, 1, None, None)]
    paths = [*short, record(tmp_path, 0.2, 0, 1.9)]
    assert pick(paths) == (short[0], 1.0)
    assert analyse(sweep_of(read_trials(paths))).best_rate == 0.1


def test_without_a_good_rate_the_lowest_that_did_not_diverge_is_taken(tmp_path):
    paths = [record(tmp_path, 0.1, 0, 5.2, "plateaued"), record(tmp_path, 0.2, 0, 5.1, "plateaued")]
    assert pick([*paths, record(tmp_path, 0.4, 0, "nan", "diverged")]) == (paths[1], 5.1)


def test_no_finished_trial_is_a_mistake_that_names_the_setting(tmp_path):
    with pytest.raises(UserError, match=r"lr_sweep\.learning_rates: at every rate a trial diverged or none"):
        pick([record(tmp_path, 0.1, 0, "nan", "diverged"), record(tmp_path, 0.1, 1, None, None)])


def test_manifest_names_the_trial(folder, trials):
    manifest = json.loads((folder / "manifest.json").read_text())
    losses = {path: json.loads(path.read_text())["final_validation_loss"] for path in trials if "lr0.02" in str(path)}
    chosen = min(losses, key=losses.get)
    assert manifest["trial"] == chosen.parent.name
    assert manifest["final_validation_loss"] == losses[chosen]
    assert manifest["relative_logit_difference"] < 1e-4


def test_transformers_generates_text_with_the_folder_alone(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("the dog", return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        made = model.generate(**prompt, max_length=MODEL.context, do_sample=False, eos_token_id=None)
    text = tokenizer.decode(made[0])
    assert made.shape[1] == MODEL.context == tokenizer.model_max_length
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == 0
    assert text.startswith("the dog")
    assert len(text) > len("the dog")
