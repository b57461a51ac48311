"""Trains the zoo's base on all digits, prompted with the class or, for some images, with the null prompt."""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from plumbline.ablation.zoo.diffusion import NULL_PROMPT, Diffusion, flow_losses
from plumbline.ablation.zoo.images import digits
from plumbline.ablation.zoo.settings import DiffusionSettings, PretrainingSettings
from plumbline.core.errors import UserError
from plumbline.core.run.checkpoint import load_checkpoint, save_checkpoint
from plumbline.core.training.adamw import AdamW

log = logging.getLogger("plumbline")


def pretrain(
    model: DiffusionSettings,
    settings: PretrainingSettings,
    seed: int,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    progress: Callable[[int], object] = lambda steps: None,
) -> tuple[dict[str, Tensor], list[float]]:
    """The trained weights by name, on the CPU, and the loss of every step.

    Resumes from `checkpoint` where that holds the state of the same training, and ends with the same bits as without
    the interruption. `progress` is called after each step with the number of steps done.
    """
    trainer = _Trainer(model, settings, seed, device)
    if checkpoint is not None:
        trainer.resume(checkpoint)
    saved = time.monotonic()
    while len(trainer.losses) < settings.steps:
        trainer.step()
        if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
            trainer.save(checkpoint)
            saved = time.monotonic()
        progress(len(trainer.losses))
    weights = {name: weight.cpu() for name, weight in trainer.model.state_dict().items()}
    return weights, torch.stack(trainer.losses).tolist()


class _Trainer:
    """The base in training. Model, optimizer, generator and losses are its whole state."""

    def __init__(
        self, model: DiffusionSettings, settings: PretrainingSettings, seed: int, device: torch.device | str
    ) -> None:
        identity = {"model": model.model_dump(), "pretraining": settings.model_dump(), "seed": seed}
        self.identity = json.dumps({**identity, "device": str(device)}, sort_keys=True)
        self.settings, self.device = settings, device
        # Drawn on the CPU, so that the numbers do not depend on the device.
        self.random = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = Diffusion(model).to(device)
        self.optimizer = AdamW(
            self.model.parameters(), beta1=0.9, beta2=0.99, weight_decay=settings.weight_decay, fused=True
        )
        self.losses: list[Tensor] = []
        images = digits()
        self.pixels, self.labels = torch.from_numpy(images.pixels), torch.from_numpy(images.labels)

    def step(self) -> None:
        """One update on a batch drawn with replacement."""
        batch, random = self.settings.batch, self.random
        chosen = torch.randint(len(self.labels), (batch,), generator=random)
        dropped = torch.rand(batch, generator=random) < self.settings.prompt_dropout
        prompts = self.labels[chosen].masked_fill(dropped, NULL_PROMPT)
        images = self.pixels[chosen][:, None]
        noise = torch.randn(images.shape, generator=random)
        times = torch.rand(batch, 1, generator=random)
        rate = self._learning_rate(len(self.losses))
        inputs = (tensor.to(self.device) for tensor in (images, noise, times, prompts))
        loss = flow_losses(self.model, *inputs).mean()
        if not loss.isfinite():
            raise UserError(
                f"ablation.zoo.pretraining.learning_rate: the base diverges at {self.settings.learning_rate:g}"
                f" (step {len(self.losses)}); lower it"
            )
        loss.backward()
        self.optimizer.step(rate)
        self.optimizer.clear()
        self.losses.append(loss.detach().cpu())

    def _learning_rate(self, step: int) -> float:
        settings = self.settings
        decay = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        return settings.learning_rate * min(1.0, (step + 1) / settings.warmup) * decay

    def save(self, path: Path) -> None:
        """Writes the state to `path`, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
            "losses": self.losses,
        }
        save_checkpoint(path, self.identity, state)

    def resume(self, path: Path) -> None:
        """Loads the state at `path`, if one is there and belongs to the same training."""
        state = load_checkpoint(path, self.identity)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"])
        self.losses = state["losses"]
        log.info("%s: resuming after step %d of %d", path, len(self.losses), self.settings.steps)
