"""Stage `lr_sweep.train`: one trial, the model trained at one learning rate from one seed."""

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
from plumbline.core.run.device import device_name, memory_errors, torch_device
from plumbline.core.run.record import Outcome, OutcomeError, recording
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.settings import ModelSettings, OperationSettings, StabilitySettings, TrainingSettings
from plumbline.lr_sweep.training import checkpoint as checkpoints
from plumbline.lr_sweep.training.allocator import keep_freed_memory
from plumbline.lr_sweep.training.compiler import compiler_counts
from plumbline.lr_sweep.training.data import Tokens, open_tokens
from plumbline.lr_sweep.training.loop import Fit, Row, Run, train_model
from plumbline.lr_sweep.training.model import FLOPS_FORMULA, flops_per_token, parameter_count
from plumbline.lr_sweep.training.stability import Stability, classify

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
"""Of metrics.csv: a row each log interval and validation, empty where nothing was measured."""


class TrainSpec(Spec):
    """What decides one trial."""

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
    """Trains and writes the record to `output`, metrics.csv and weights.safetensors beside it.

    tokens: meta.json, with train.bin and validation.bin beside it. Goes on from its checkpoint where there is one, and
    keeps one every `checkpoint_seconds`, and every `checkpoint_steps` unless that is 0. A trial that runs out of memory
    leaves metrics without a row and a file without weights.
    """
    keep_freed_memory()
    if not (math.isfinite(spec.rate) and spec.rate > 0):
        raise UserError(f"--spec: rate: a learning rate is a number above zero (given: {spec.rate!r})")
    corpus = open_tokens(tokens.parent)
    if corpus.vocabulary > spec.model.vocabulary:
        raise UserError(f"{tokens}: {corpus.vocabulary} tokens, model.vocabulary is {spec.model.vocabulary}")
    operation = OperationSettings(
        checkpoint_seconds=checkpoint_seconds, checkpoint_steps=checkpoint_steps or None, log_steps=log_steps
    )
    identity = spec.model_dump_json()
    chosen = torch_device(device)
    run = Run(model=spec.model, training=spec.training, rate=spec.rate, seed=spec.seed, identity=identity)
    checkpoint = checkpoints.checkpoint_path(output, identity)
    trial = output.parent.name
    metrics, weights = output.with_name("metrics.csv"), output.with_name("weights.safetensors")
    with recording(output, study="lr_sweep", stage="train", trial=trial, spec=spec) as findings:
        findings |= {"rate": spec.rate, "seed": spec.seed, "device": device_name(chosen)}
        try:
            with memory_errors():
                fit = train_model(run, corpus, chosen, operation, checkpoint)
        except MemoryError:
            write_metrics(metrics, [])
            write_weights(weights, {})
            raise
        write_metrics(metrics, fit.rows)
        write_weights(weights, dict(fit.model.named_parameters()))
        findings |= findings_of(fit, corpus, spec.stability)
        if findings["class"] == Stability.DIVERGED:
            raise OutcomeError(Outcome.DIVERGED, findings["class_reason"])
    checkpoints.remove_all(output)


def findings_of(fit: Fit, tokens: Tokens, stability: StabilitySettings) -> dict[str, Any]:
    """What a record says of a finished run; numbers that are not finite as the strings nan, inf and -inf."""
    fit.spans.mark("other")
    fit.spans.settle()
    losses, model = fit.losses[: fit.step].tolist(), fit.run.model
    validated = [row["val_loss"] for row in fit.rows if "val_loss" in row]
    initial, final = validated[0], validated[-1]
    verdict = classify(losses, initial, final, tokens.unigram_entropy, stability)
    tokens_seen = fit.step * fit.tokens_per_step
    window = losses[-stability.window :]
    findings = {
        "class": verdict.stability.value,
        "class_reason": verdict.why,
        "spikes": verdict.spikes,
        "largest_z": verdict.largest_z,
        "final_validation_loss": final,
        "best_validation_loss": min(filter(math.isfinite, validated), default=math.nan),
        "initial_validation_loss": initial,
        "final_train_loss": sum(window) / len(window),
        "unigram_entropy_nats": tokens.unigram_entropy,
        "steps": fit.step,
        "tokens": tokens_seen,
        "validation_windows": fit.validation_windows,
        "tokens_per_second": tokens_seen / fit.spans.training,
        "parameters": parameter_count(model),
        "flops_per_token": flops_per_token(model),
        "flops_formula": FLOPS_FORMULA,
        "spans": fit.spans.named(),
        "wall_seconds": fit.spans.total,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "precision": fit.choices.found,
        "compiler": compiler_counts(),
        "dtype": fit.dtype,
        "threads": torch.get_num_threads(),
        "restarts": fit.restarts,
        "train_losses": losses,
        "grad_norms": fit.grad_norms[: fit.step].tolist(),
    }
    if fit.device.type == "cuda":
        findings["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(fit.device)
    return {name: plain(value) for name, value in findings.items()}


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become the strings nan, inf and -inf."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def write_metrics(path: Path, rows: list[Row]) -> None:
    """The rows as CSV, atomically."""
    with atomic(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def write_weights(path: Path, weights: dict[str, nn.Parameter]) -> None:
    """The weights in float32 by the names of LlamaForCausalLM, atomically; tied ones once."""
    held = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    write_bytes(path, save(held, metadata={"format": "pt"}))  # save_file leaves a file of its own when killed


if __name__ == "__main__":
    train.main()
