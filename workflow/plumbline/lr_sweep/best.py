"""Stage `lr_sweep.best`: the model of the best trial, as a folder that transformers can load."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, read_json, sha256_of_files, write_json
from plumbline.core.plan.target import MergeSpec
from plumbline.core.run.records import check_specs
from plumbline.core.run.stage import stage
from plumbline.core.text import byte_pair
from plumbline.core.text.byte_pair import END_OF_TEXT_ID
from plumbline.lr_sweep.analysis.sweep import best_or_stable, sweep_of
from plumbline.lr_sweep.record import TrialRecord, or_nan
from plumbline.lr_sweep.settings import BEST_MODEL, ModelSettings
from plumbline.lr_sweep.training.model import Transformer, transformers_config

LOGIT_TOLERANCE = 1e-4
"""Largest difference allowed, relative to the largest logit."""

log = logging.getLogger("plumbline")


class BestSpec(MergeSpec):
    """What decides the best model: only the trials."""


@stage
def best(spec: BestSpec, trials: list[Path], tokenizer: Path, output: Path) -> None:
    """Writes the manifest `output`, which names the trial, with config, weights and tokenizer beside it.

    trials: records, each with its weights.safetensors beside it. tokenizer: tokenizer.json, with tokenizer_config.json
    beside it. Raises UserError when every trial diverged, or when the model gives other logits in transformers.
    """
    path, mean = pick(trials, spec.records)
    record = TrialRecord.read(path)
    model = ModelSettings.model_validate(record.spec["model"])
    byte_pair.load(tokenizer)  # refuses a tokenizer with another end-of-text token
    with atomic(output.parent) as folder:
        folder.mkdir()
        write_json(folder / "config.json", transformers_config(model, END_OF_TEXT_ID))
        ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), END_OF_TEXT_ID)
        write_json(folder / "generation_config.json", ends)
        shutil.copyfile(path.with_name("weights.safetensors"), folder / "model.safetensors")
        shutil.copyfile(tokenizer, folder / tokenizer.name)
        described = read_json(tokenizer.with_name("tokenizer_config.json")) | {"model_max_length": model.context}
        write_json(folder / "tokenizer_config.json", described)
        difference = logit_difference(folder, model)
        if not difference <= LOGIT_TOLERANCE:
            raise UserError(
                f"{path.parent}: its logits in transformers differ from ours by up to {difference:.2g} of the largest"
                f" (at most {LOGIT_TOLERANCE:g} is allowed); use the transformers version in requirements.txt"
            )
        manifest = {
            "trial": record.trial,
            "rate": record.rate,
            "seed": record.seed,
            "final_validation_loss": record.final_validation_loss,
            "mean_final_validation_loss_of_rate": mean,
            "trials_compared": len(trials),
            "parameters": record.parameters,
            "relative_logit_difference": difference,
            "content_sha256": sha256_of_files(folder / file for file in BEST_MODEL),
        }
        write_json(folder / output.name, manifest)
    log.info("best trial: %s, %.4f nats (mean of its rate: %.4f)", record.trial, record.final_validation_loss, mean)


def pick(trials: Sequence[Path], expected: Mapping[str, str] | None = None) -> tuple[Path, float]:
    """The record with the lowest final validation loss at the best rate, and that rate's mean loss over its seeds.

    The best rate is the one of the analysis: the lowest mean among the rates that converged for every seed, or, when
    there is none, among those that did not diverge. expected: as of `read_records`. Raises UserError when all diverged.
    """
    records = {path: TrialRecord.read(path) for path in trials}
    if expected is not None:
        check_specs(records.values(), expected)
    sweep = sweep_of(list(records.values()))
    best = best_or_stable(sweep)
    if best is None:
        raise UserError(
            "lr_sweep.learning_rates: at every rate a trial diverged or none has a loss; add lower rates, or see"
            " summary.csv for the outcomes of the trials"
        )
    at_best = [path for path, record in records.items() if record.rate == sweep.rates[best] and record.trained]
    return min(at_best, key=lambda path: or_nan(records[path].final_validation_loss)), float(
        np.nanmean(sweep.losses[best])
    )


@torch.no_grad()
def logit_difference(folder: Path, settings: ModelSettings) -> float:
    """The largest difference between the logits in transformers and in our model, relative to the largest logit."""
    from transformers import AutoModelForCausalLM  # takes seconds, and only this stage needs it

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = load_model(folder / "model.safetensors", settings)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(settings.vocabulary, (2, settings.context), generator=draw)
    expected = ours(tokens)
    return float((theirs(tokens).logits - expected).abs().max() / expected.abs().max())


def load_model(weights: Path, settings: ModelSettings) -> Transformer:
    """Our model with a trial's weights."""
    model = Transformer(settings)
    # tied weights are stored under the name of the embedding only
    model.load_state_dict(load_file(weights), strict=not settings.tied_embeddings)
    return model


if __name__ == "__main__":
    best.main()
