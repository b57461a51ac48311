"""Stage `lr_sweep.best`: the best trial's model as a folder that transformers loads."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, read_json, sha256_of_files, write_json
from plumbline.core.plan.target import MergeSpec
from plumbline.core.run.record import check_specs, read_record
from plumbline.core.run.stage import stage
from plumbline.core.text import byte_pair
from plumbline.core.text.byte_pair import END_OF_TEXT_ID
from plumbline.lr_sweep.analysis.sweep import centre, sweep_of
from plumbline.lr_sweep.settings import BEST_MODEL, ModelSettings
from plumbline.lr_sweep.training.model import Transformer, transformers_config

LOGIT_TOLERANCE = 1e-4
"""Relative to the largest logit."""
LOSS = "final_validation_loss"

log = logging.getLogger("plumbline")


class BestSpec(MergeSpec):
    """What decides the best model: nothing but the trials."""


@stage
def best(spec: BestSpec, trials: list[Path], tokenizer: Path, output: Path) -> None:
    """Writes the folder of `output`, a manifest that names the trial, with config, weights and tokenizer beside it.

    trials: records, each with its weights.safetensors beside it. tokenizer: tokenizer.json, its configuration beside.
    Raises UserError when no trial finished, or when transformers computes other logits from the folder than we do.
    """
    check_specs(map(read_record, trials), spec.records)
    chosen, mean = pick(trials)
    record = read_record(chosen)
    model = ModelSettings.model_validate(record["spec"]["model"])
    byte_pair.load(tokenizer)  # refuses one whose end of text is another token
    with atomic(output.parent) as folder:
        folder.mkdir()
        write_json(folder / "config.json", transformers_config(model, END_OF_TEXT_ID))
        ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), END_OF_TEXT_ID)
        write_json(folder / "generation_config.json", ends)
        shutil.copyfile(chosen.with_name("weights.safetensors"), folder / "model.safetensors")
        shutil.copyfile(tokenizer, folder / tokenizer.name)
        described = read_json(tokenizer.with_name("tokenizer_config.json")) | {"model_max_length": model.context}
        write_json(folder / "tokenizer_config.json", described)
        difference = logit_difference(folder, model)
        if not difference <= LOGIT_TOLERANCE:
            raise UserError(
                f"{chosen.parent}: transformers computes other logits from it, by up to {difference:.2g} of the largest"
            )
        manifest = {
            "trial": record["trial"],
            "rate": record["rate"],
            "seed": record["seed"],
            "final_validation_loss": record["final_validation_loss"],
            "mean_final_validation_loss_of_rate": mean,
            "trials_compared": len(trials),
            "parameters": record["parameters"],
            "relative_logit_difference": difference,
            "content_sha256": sha256_of_files(folder / file for file in BEST_MODEL),
        }
        write_json(folder / output.name, manifest)
    log.info("%s is the best trial: %.4f nats, its rate %.4f on average", record["trial"], manifest[LOSS], mean)


def pick(trials: Sequence[Path]) -> tuple[Path, float]:
    """The record with the least final validation loss at the best rate, and that rate's mean over its seeds.

    The best rate is the analysis's: the lowest mean of those that converged for every seed; where none did, of those
    that did not diverge. Raises UserError when there is none.
    """
    records = {path: read_record(path) for path in trials}
    sweep = sweep_of(list(records.values()))
    best = centre(sweep)
    if best is None:
        raise UserError(
            f"lr_sweep.learning_rates: at each of {len(sweep.rates)} rates a trial diverged or none has a loss; lower"
            " the rates, or see summary.csv for what else the trials found"
        )
    own = {path: record for path, record in records.items() if record["rate"] == sweep.rates[best] and LOSS in record}
    return min(own, key=lambda path: float(own[path][LOSS])), float(np.nanmean(sweep.losses[best]))


@torch.no_grad()
def logit_difference(folder: Path, settings: ModelSettings) -> float:
    """How far the logits of the folder's model, loaded by transformers, are from our own, relative to the largest."""
    from transformers import AutoModelForCausalLM  # takes seconds, and only this stage needs it

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = load_model(folder / "model.safetensors", settings)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(settings.vocabulary, (2, settings.context), generator=draw)
    expected = ours(tokens)
    return float((theirs(tokens).logits - expected).abs().max() / expected.abs().max())


def load_model(weights: Path, settings: ModelSettings) -> Transformer:
    """Our model with the weights of a trial."""
    model = Transformer(settings)
    # a tied head stands in the file under the embedding's name only
    model.load_state_dict(load_file(weights), strict=not settings.tied_embeddings)
    return model


if __name__ == "__main__":
    best.main()
