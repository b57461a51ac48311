"""Stage `lr_sweep.best`: the best trial's model as a folder that transformers loads."""

import logging
import math
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, read_json, write_json
from plumbline.core.plan import Spec
from plumbline.core.record import Outcome, read_record
from plumbline.core.stage import stage
from plumbline.lr_sweep.model import Transformer, transformers_config
from plumbline.lr_sweep.settings import ModelSettings

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
LOGIT_TOLERANCE = 1e-4
"""Relative to the largest logit."""
END_OF_TEXT = "<|endoftext|>"
LOSS = "final_validation_loss"

log = logging.getLogger("plumbline")


class BestSpec(Spec):
    """What decides the best model: nothing but the trials."""


@stage
def best(spec: BestSpec, trials: list[Path], tokenizer: Path, output: Path) -> None:
    """Writes the folder of `output`, a manifest that names the trial, with config, weights and tokenizer beside it.

    trials: records, each with its weights.safetensors beside it. tokenizer: tokenizer.json, its configuration beside.
    Raises UserError when no trial finished, or when transformers computes other logits from the folder than we do.
    """
    chosen, mean = pick(trials)
    record = read_record(chosen)
    model = ModelSettings.model_validate(record["spec"]["model"])
    end_of_text = end_of_text_id(tokenizer)
    with atomic(output.parent) as folder:
        folder.mkdir()
        write_json(folder / "config.json", transformers_config(model, end_of_text))
        write_json(folder / "generation_config.json", {"bos_token_id": end_of_text, "eos_token_id": end_of_text})
        shutil.copyfile(chosen.with_name("weights.safetensors"), folder / "model.safetensors")
        for name in TOKENIZER_FILES:
            if (source := tokenizer.with_name(name)).exists():
                shutil.copyfile(source, folder / name)
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
        }
        write_json(folder / output.name, manifest)
    log.info("%s is the best trial: %.4f nats, its rate %.4f on average", record["trial"], manifest[LOSS], mean)


def pick(trials: Sequence[Path]) -> tuple[Path, float]:
    """The best seed's record of the rate with the lowest mean final validation loss over its seeds, and that mean.

    A rate counts when all of its trials finished. Raises UserError when there is none.
    """
    by_rate: dict[float, list[tuple[float, Path]]] = defaultdict(list)
    for path in trials:
        record = read_record(path)
        by_rate[float(record["rate"])].append((_final_loss(record), path))
    means = {rate: sum(loss for loss, _ in found) / len(found) for rate, found in by_rate.items()}
    rate = min(means, key=lambda rate: (means[rate], rate), default=None)
    if rate is None or not math.isfinite(means[rate]):
        raise UserError(f"lr_sweep.learning_rates: at none of {len(by_rate)} rates did every seed finish; lower them")
    return min(by_rate[rate])[1], means[rate]


def _final_loss(record: dict[str, Any]) -> float:
    return float(record[LOSS]) if record["outcome"] == Outcome.OK else math.inf


def end_of_text_id(tokenizer: Path) -> int:
    """The id of the end-of-text token of a tokenizer.json. Raises UserError when it has none."""
    for token in read_json(tokenizer).get("added_tokens", []):
        if token["content"] == END_OF_TEXT:
            return int(token["id"])
    raise UserError(f"{tokenizer}: has no token {END_OF_TEXT}; delete it to have it trained again")


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
