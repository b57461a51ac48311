"""The training loop: AdamW, linear warm-up and cosine, clipping, validation, metrics, checkpoints.

A `RunConfig` holds everything that decides a run's numbers; a `Trainer` holds its state, which checkpoints save.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.core.measure.clocks import clocks
from plumbline.core.measure.spans import Spans
from plumbline.core.run.checkpoint import load_checkpoint, save_checkpoint
from plumbline.core.run.progress import Progress, log_event
from plumbline.core.training.adamw import AdamW
from plumbline.lr_sweep.settings import ModelSettings, OperationSettings, TrainingSettings
from plumbline.lr_sweep.training.compiler import compiler_counts
from plumbline.lr_sweep.training.data import Tokens, TrainingWindows, validation_batches
from plumbline.lr_sweep.training.model import Transformer
from plumbline.lr_sweep.training.precision import ComputeConfig, autotune

Row = dict[str, float]
log = logging.getLogger("plumbline")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the numbers of a run."""

    model: ModelSettings
    training: TrainingSettings
    rate: float
    """The peak learning rate."""
    seed: int
    """Seed of the initial weights and of the order of the data."""
    identity: str
    """The trial's whole spec as JSON: only its own checkpoint is resumed."""


def train_model(
    run: RunConfig, tokens: Tokens, device: torch.device, operation: OperationSettings, checkpoint: Path | None = None
) -> "Trainer":
    """Trains until the last step, or until a validation finds a loss that is not finite.

    Resumes from `checkpoint` where it exists; on a CPU the result is bit-identical to an uninterrupted run.
    """
    trainer = Trainer(run, tokens, device)
    if checkpoint is None or not trainer.resume(checkpoint):
        trainer.spans.mark("other")
        config = autotune(run.model, run.training, tokens, device)
        trainer.spans.mark("autotune")
        trainer.prepare(config)
        trainer.validate()
        trainer.log()
        if checkpoint is not None:  # at once: a second probe could decide on another arithmetic
            trainer.save(checkpoint)
    training, saved_at = run.training, time.monotonic()
    with Progress(training.steps, "steps", done=trainer.step) as progress:
        while trainer.step < training.steps and trainer.finite:
            trainer.advance()
            validates = trainer.step % training.validate_every == 0 or trainer.step == training.steps
            if validates:
                trainer.validate()
            if validates or trainer.step % operation.log_steps == 0:
                trainer.log()
            if checkpoint is not None and _due(operation, trainer.step, saved_at):
                trainer.save(checkpoint)
                saved_at = time.monotonic()
            progress.advance()
    return trainer


def _due(operation: OperationSettings, step: int, saved_at: float) -> bool:
    every = operation.checkpoint_steps
    by_steps = every is not None and step % every == 0
    return by_steps or time.monotonic() - saved_at >= operation.checkpoint_seconds


class Trainer:
    """A model in training: weights, optimizer, position in the data, metrics."""

    def __init__(self, run: RunConfig, tokens: Tokens, device: torch.device) -> None:
        self.spans = Spans(device)
        self.run, self.device = run, device
        training, model = run.training, run.model
        sizes: dict[str, Any] = {"batch": training.batch, "context": model.context, "device": device}
        self.windows = TrainingWindows(tokens.train, seed=run.seed, **sizes)
        self.validation = list(validation_batches(tokens.validation, windows=training.validation_windows, **sizes))
        self.validation_windows = sum(len(inputs) for inputs, _ in self.validation)
        if self.validation_windows < training.validation_windows:
            log.info("the validation text has only %d windows; validating on all of them", self.validation_windows)
        torch.manual_seed(run.seed)
        self.model = Transformer(model).to(device)
        self.losses = torch.full((training.steps,), math.nan, device=device)
        self.grad_norms = torch.full((training.steps,), math.nan, device=device)
        self.rows: list[Row] = []
        self.step = self.restarts = 0
        self.validation_loss = math.nan
        self.finite = True
        self.dtype = str(self.model.lm_head.weight.dtype).removeprefix("torch.")
        self.tokens_per_step = training.batch * model.context
        self._at_last_row = {"step": 0, "training": 0.0, "data_wait": 0.0}

    def prepare(self, config: ComputeConfig) -> None:
        """Creates the optimizer and sets the arithmetic.

        A step at the peak rate multiplies the matrices by 1 - weight_decay, whatever the peak rate is: independent
        weight decay (Wortsman et al. 2023, arXiv 2309.14322, section 3.2.2; Loshchilov and Hutter 2019, algorithm 2).
        google-deepmind/nanodo writes it the same way: with independent_weight_decay, nanodo/optimizer.py (commit
        413e781) passes weight_decay / peak_learning_rate to optax.adamw, whose decay follows the rate's schedule.
        """
        training = self.run.training
        self.config = config
        self.autocast = config.arithmetic(self.device)
        self.compute: Callable[..., Tensor] = self.model
        self.optimizer = AdamW(
            self.model.parameters(),
            beta1=training.beta1,
            beta2=training.beta2,
            # independent decay: AdamW multiplies it by the rate, which cancels, so only the schedule's factor remains
            weight_decay=training.weight_decay / self.run.rate,
            fused=config.fused,
            spare_vectors=True,
        )
        self.spans.mark("other")
        if config.compile:
            self.compute = self._compiled()
            self.spans.mark("compile")

    def _compiled(self) -> Callable[..., Tensor]:
        """The model with its forward and backward pass compiled, before any step is timed."""
        compute: Callable[..., Tensor] = torch.compile(self.model)
        blank = self.windows.blank()  # the layout of a real batch, or the first step would compile again
        with self.autocast:
            loss = compute(*blank)
        loss.backward()
        loss.item()
        self.optimizer.clear()
        return compute

    def advance(self) -> None:
        """One optimizer step."""
        inputs, targets = self.windows.draw()
        self.spans.mark("data_wait")
        with self.autocast:
            loss = self.compute(inputs, targets)
        self.spans.mark("forward")
        loss.backward()
        self.spans.mark("backward")
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.weights, self.run.training.clip)
        self.optimizer.step(learning_rate(self.run, self.step))
        self.optimizer.clear()
        # kept on the device: reading them would make a GPU wait for the host at every step
        self.losses[self.step] = loss.detach()
        self.grad_norms[self.step] = norm
        self.step += 1
        self.spans.mark("optimizer")

    @torch.no_grad()
    def validate(self) -> None:
        """Measures the mean loss over all validation tokens."""
        total = torch.zeros((), device=self.device)
        count = 0
        for inputs, targets in self.validation:
            with self.autocast:
                total += self.model(inputs, targets, reduction="sum")
            count += targets.numel()
        self.validation_loss = total.item() / count
        self.finite = math.isfinite(self.validation_loss) and bool(self.losses[: self.step].isfinite().all())
        self.spans.mark("validation")

    @torch.no_grad()
    def window_losses(self, tokens: Tokens) -> Tensor:
        """The mean loss of each window of the whole validation text: float64 (windows,)."""
        batch, context = self.run.training.batch, self.run.model.context
        batches = validation_batches(tokens.validation, batch=batch, context=context, device=self.device)
        losses = []
        for inputs, targets in batches:
            with self.autocast:
                loss = self.model(inputs, targets, reduction="none")
            losses.append(loss.view(targets.shape).double().mean(dim=1))
        self.spans.mark("validation")
        return torch.cat(losses).cpu()

    def log(self) -> None:
        """Adds a row of metrics, and writes to the journal where the time went."""
        self.spans.mark("logging")
        self.spans.settle()
        last, spans = self._at_last_row, self.spans
        steps = self.step - int(last["step"])
        validated = self.step % self.run.training.validate_every == 0 or self.step == self.run.training.steps
        row = {"step": self.step, "wallclock_time": time.time(), "elapsed_time": spans.total}
        if steps:
            seconds = spans.training - last["training"]
            row["train_loss"] = self.losses[self.step - steps : self.step].mean().item()
            row["learning_rate"] = learning_rate(self.run, self.step - 1)
            row["grad_norm"] = self.grad_norms[self.step - 1].item()
            row["tokens_per_second"] = steps * self.tokens_per_step / seconds
            row["data_wait_seconds"] = spans.seconds["data_wait"] - last["data_wait"]
        if validated:
            row["val_loss"] = self.validation_loss
            row["val_perplexity"] = perplexity(self.validation_loss)
        self.rows.append(row)
        self._at_last_row = {"step": self.step, "training": spans.training, "data_wait": spans.seconds["data_wait"]}
        log_event(
            spans=spans.named(),
            clock=clocks(),
            threads=torch.get_num_threads(),
            dtype=self.dtype,
            precision=self.config.model_dump(mode="json", exclude_none=True)["decisions"],
            compiler=compiler_counts(),
            done=self.step,
            total=self.run.training.steps,
            device=str(self.device),
            tokens_per_step=self.tokens_per_step,
        )
        self.spans.mark("logging")

    def save(self, path: Path) -> None:
        """Writes the whole state to `path`, atomically."""
        self.spans.mark("other")
        self.spans.settle()
        save_checkpoint(path, self.run.identity, self.state())
        self.spans.mark("checkpoint")

    def state(self) -> dict[str, Any]:
        """Everything that a run needs to resume bit-exactly, and what it has measured so far."""
        return {
            "step": self.step,
            "restarts": self.restarts,
            "finite": self.finite,
            "config": self.config.model_dump(mode="json"),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": self.windows.position,
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "losses": self.losses,
            "grad_norms": self.grad_norms,
            "validation_loss": self.validation_loss,
            "rows": self.rows,
            "at_last_row": self._at_last_row,
            "spans": dict(self.spans.seconds),
        }

    def resume(self, path: Path) -> bool:
        """Restores the state in `path`; False when there is none. Raises UserError when it is not a checkpoint."""
        state = load_checkpoint(path, self.run.identity, self.device)
        if state is None:
            return False
        self.prepare(ComputeConfig.model_validate(state["config"]))
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.windows.position = state["position"].cpu()
        torch.set_rng_state(state["random"].cpu())
        if state["random_gpu"] is not None:
            torch.cuda.set_rng_state(state["random_gpu"].cpu(), self.device)
        self.step, self.restarts, self.finite = state["step"], state["restarts"] + 1, state["finite"]
        self.losses, self.grad_norms = state["losses"], state["grad_norms"]
        self.validation_loss, self.rows = state["validation_loss"], state["rows"]
        self._at_last_row = state["at_last_row"]
        self.spans.take_up(state["spans"])
        self.spans.mark("other")
        log.info("%s: resumed after step %d", path, self.step)
        return True


def learning_rate(run: RunConfig, step: int) -> float:
    """The rate of step 0, 1, …: linear warm-up to the peak, then half a cosine that ends at the last step."""
    training = run.training
    if step < training.warmup_steps:
        return run.rate * (step + 1) / training.warmup_steps
    peak = max(training.warmup_steps - 1, 0)
    done = (step - peak) / max(training.steps - 1 - peak, 1)
    return run.rate * (training.final_ratio + (1 - training.final_ratio) * 0.5 * (1 + math.cos(math.pi * done)))


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return math.exp(loss) if loss < 700 or math.isnan(loss) else math.inf
