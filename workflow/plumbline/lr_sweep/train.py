"""Stage `lr_sweep.train`: one trial, which trains the model at one learning rate with one seed."""

import csv
import math
import resource
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, write_bytes
from plumbline.core.plan.target import Spec
from plumbline.core.run.checkpoint import checkpoint_path, remove_checkpoints
from plumbline.core.run.device import device_name, memory_errors, torch_device
from plumbline.core.run.record import Outcome, OutcomeError, recording
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.record import Curve, Stability, TrialRecord
from plumbline.lr_sweep.settings import ModelSettings, OperationSettings, StabilitySettings, TrainingSettings
from plumbline.lr_sweep.training.allocator import keep_freed_memory
from plumbline.lr_sweep.training.compiler import compiler_counts
from plumbline.lr_sweep.training.data import Tokens, open_tokens
from plumbline.lr_sweep.training.loop import Row, RunConfig, Trainer, train_model
from plumbline.lr_sweep.training.model import FLOPS_FORMULA, flops_per_token, parameter_count
from plumbline.lr_sweep.training.stability import classify

COLUMNS = (
    "step",
    "wallclock_time",
    "elapsed_time",
    "train_loss",
    "val_loss",
    "val_perplexity",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "data_wait_seconds",
)
"""Columns of metrics.csv: a row per log interval and per validation, empty where nothing was measured."""


class TrainSpec(Spec):
    """Everything that decides one trial."""

    model: ModelSettings
    training: TrainingSettings
    stability: StabilitySettings
    rate: float
    seed: int


@stage
def train(
    spec: TrainSpec,
    tokens: Path,
    output: Path,
    checkpoint_seconds: float = 30.0,
    checkpoint_steps: int = 0,
    log_steps: int = 10,
    device: str = "auto",
) -> None:
    """Trains, and writes the record to `output` with metrics.csv and weights.safetensors beside it.

    tokens: meta.json, with train.bin and validation.bin beside it. Resumes from its checkpoint where there is one, and
    writes one every `checkpoint_seconds`, and every `checkpoint_steps` unless that is 0. A trial that runs out of
    memory writes a metrics.csv without rows and a weights file without weights.
    """
    keep_freed_memory()
    if not (math.isfinite(spec.rate) and spec.rate > 0):
        raise UserError(f"--spec: rate: must be a finite number above zero (given: {spec.rate!r})")
    corpus = open_tokens(tokens.parent)
    if corpus.vocabulary > spec.model.vocabulary:
        raise UserError(
            f"{tokens}: the vocabulary has {corpus.vocabulary} tokens, but lr_sweep.model.vocabulary is"
            f" {spec.model.vocabulary}; raise it"
        )
    operation = OperationSettings(
        checkpoint_seconds=checkpoint_seconds, checkpoint_steps=checkpoint_steps or None, log_steps=log_steps
    )
    identity, target = spec.model_dump_json(), torch_device(device)
    run = RunConfig(model=spec.model, training=spec.training, rate=spec.rate, seed=spec.seed, identity=identity)
    checkpoint, trial = checkpoint_path(output, identity), output.parent.name
    metrics, weights = output.with_name("metrics.csv"), output.with_name("weights.safetensors")
    with recording(output, TrialRecord, trial=trial, spec=spec) as findings:
        findings |= {"rate": spec.rate, "seed": spec.seed, "device": device_name(target)}
        try:
            with memory_errors():
                trainer = train_model(run, corpus, target, operation, checkpoint)
        except MemoryError:
            write_metrics(metrics, [])
            write_weights(weights, {})
            raise
        write_metrics(metrics, trainer.rows)
        write_weights(weights, dict(trainer.model.named_parameters()))
        findings |= measurements(trainer, corpus, spec.stability)
        if findings["class"] is Stability.DIVERGED:
            raise OutcomeError(Outcome.DIVERGED, findings["class_reason"])
    remove_checkpoints(output)


def measurements(trainer: Trainer, tokens: Tokens, stability: StabilitySettings) -> dict[str, Any]:
    """The measurements of a finished run, by the names of the record's fields."""
    trainer.spans.mark("other")
    trainer.spans.settle()
    losses, model = trainer.losses[: trainer.step].tolist(), trainer.run.model
    validated = [row for row in trainer.rows if "val_loss" in row]
    curve = [row["val_loss"] for row in validated]
    classification = classify(losses, curve[0], curve[-1], tokens.unigram_entropy, stability)
    tokens_seen = trainer.step * trainer.tokens_per_step
    window = losses[-stability.window :]
    on_gpu = trainer.device.type == "cuda"
    return {
        "class": classification.stability,
        "class_reason": classification.why,
        "spikes": classification.spikes,
        "largest_z": classification.largest_z,
        "final_validation_loss": curve[-1],
        "best_validation_loss": min(filter(math.isfinite, curve), default=math.nan),
        "initial_validation_loss": curve[0],
        "final_train_loss": sum(window) / len(window),
        "unigram_entropy_nats": tokens.unigram_entropy,
        "steps": trainer.step,
        "tokens": tokens_seen,
        "validation_windows": trainer.validation_windows,
        "tokens_per_second": tokens_seen / trainer.spans.training,
        "parameters": parameter_count(model),
        "flops_per_token": flops_per_token(model),
        "flops_formula": FLOPS_FORMULA,
        "spans": trainer.spans.named(),
        "wall_seconds": trainer.spans.total,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated(trainer.device) if on_gpu else None,
        "precision": trainer.config.decisions,
        "compiler": compiler_counts(),
        "dtype": trainer.dtype,
        "threads": torch.get_num_threads(),
        "restarts": trainer.restarts,
        "train_losses": losses,
        "grad_norms": trainer.grad_norms[: trainer.step].tolist(),
        "curve": Curve(step=[int(row["step"]) for row in validated], validation_loss=curve),
    }


def write_metrics(path: Path, rows: list[Row]) -> None:
    """Writes the rows as CSV, atomically."""
    with atomic(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def write_weights(path: Path, weights: dict[str, nn.Parameter]) -> None:
    """Writes the weights in float32 under the names of LlamaForCausalLM, atomically; tied weights once."""
    held = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    write_bytes(path, save(held, metadata={"format": "pt"}))  # save_file leaves a temporary file when killed


if __name__ == "__main__":
    train.main()
