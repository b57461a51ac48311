"""Small trials of the learning-rate sweep trained at once, as one batched product over the trials, against the same
trials one after another.

    python tests/benchmarks/bench_stacked.py --output stacked.json [--repeats 5]

Every weight of the stacked model has a leading trial axis, and each product is one bmm; every trial has seed, data,
rate and clipping of its own. That both ways train the same models is checked first, and is an error where they do not.
They then take turns in one process on one thread, block by block, and are timed in CPU seconds. Starting a process,
validation, metrics and checkpoints are in neither: trials can share a process without being stacked. About 50 s.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plumbline.core.files import write_json
from plumbline.core.measure.machine import describe_machine
from plumbline.lr_sweep.settings import ModelSettings, TrainingSettings
from plumbline.lr_sweep.training.adamw import AdamW
from plumbline.lr_sweep.training.allocator import keep_freed_memory
from plumbline.lr_sweep.training.data import Tokens, TrainingWindows
from plumbline.lr_sweep.training.loop import Fit, Run, learning_rate
from plumbline.lr_sweep.training.model import NORM_EPSILON, rotate, rotations
from plumbline.lr_sweep.training.precision import MARGIN, Choices

SHAPES = {"default": ModelSettings(), "width 32": ModelSettings(width=32, hidden=88)}
TRIALS = (2, 4, 9)
RATES = [float(rate) for rate in np.geomspace(0.00025, 0.004, max(TRIALS))]
"""Up to the best one: above it training magnifies every rounding, stacked or not, and the check would see that."""
CHECKED_STEPS = 20
TOLERANCE = 1e-4
BLOCK_STEPS = {2: 5, 4: 3, 9: 2}
"""Steps of one timed block, by how many trials there are."""
CLIP = 0.5
"""Less than the gradients of the first steps, so that the check sees clipping."""
CPU = torch.device("cpu")


class StackedTrials:
    """Trials of one shape that train at once, from the weights that their fits have now.

    Each trial's weights are one row of a flat (K, weights) tensor, matrices first, and so are its gradients: clipping
    is one norm over rows, and an optimizer step is two kernels a trial. The model's weights, (K, out, in) or
    (K, width), are views of these rows.
    """

    def __init__(self, fits: list[Fit], tokens: Tokens) -> None:
        self.runs = [fit.run for fit in fits]
        self.settings, training = self.runs[0].model, self.runs[0].training
        sizes: dict[str, Any] = {"batch": training.batch, "context": self.settings.context, "device": CPU}
        self.windows = [TrainingWindows(tokens.train, seed=run.seed, **sizes) for run in self.runs]
        self.cos, self.sin = rotations(self.settings)
        self.first_rows = self.settings.vocabulary * torch.arange(len(fits))[:, None]
        self.step = 0

        models = [dict(fit.model.named_parameters()) for fit in fits]
        self.names = sorted(models[0], key=lambda name: models[0][name].dim() < 2)
        rows = [torch.cat([model[name].detach().flatten() for name in self.names]) for model in models]
        self.flat = torch.stack(rows)
        self.flat_gradients = torch.zeros_like(self.flat)
        like = [models[0][name] for name in self.names]
        self.weights = dict(zip(self.names, _pieces(self.flat, like), strict=True))
        self.gradients = _pieces(self.flat_gradients, like)
        for weight in self.weights.values():
            weight.requires_grad_()
        in_matrices = sum(weight.numel() for weight in like if weight.dim() >= 2)
        self.optimizers = [
            self._optimizer(row, gradients, in_matrices)
            for row, gradients in zip(self.flat, self.flat_gradients, strict=True)
        ]

    def _optimizer(self, row: Tensor, gradients: Tensor, in_matrices: int) -> AdamW:
        """The study's own, on one trial's row: all matrices as one of one line, which decays, and all vectors."""
        matrices, vectors = nn.Parameter(row[None, :in_matrices]), nn.Parameter(row[in_matrices:])
        matrices.grad, vectors.grad = gradients[None, :in_matrices], gradients[in_matrices:]
        training = self.runs[0].training
        betas = {"beta1": training.beta1, "beta2": training.beta2}
        return AdamW([matrices, vectors], weight_decay=training.weight_decay, fused=True, **betas)

    def advance(self) -> tuple[Tensor, Tensor]:
        """One step of every trial; their losses and gradient norms, (K,) each."""
        inputs, targets = (torch.stack(batches) for batches in zip(*(w.draw() for w in self.windows), strict=True))
        losses = self.losses(inputs, targets)
        # no trial's loss depends on another's weights, so that the gradient of their sum is the gradient of each
        gradients = torch.autograd.grad(losses.sum(), list(self.weights.values()))
        for kept, gradient in zip(self.gradients, gradients, strict=True):
            kept.copy_(gradient)
        norms = torch.linalg.vector_norm(self.flat_gradients, dim=1)
        self.flat_gradients *= (self.runs[0].training.clip / (norms + 1e-6)).clamp(max=1.0)[:, None]
        for run, optimizer in zip(self.runs, self.optimizers, strict=True):
            optimizer.step(learning_rate(run, self.step))
        self.step += 1
        return losses.detach(), norms

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of each trial, (K,), of int64 tokens (K, B, T)."""
        x = F.embedding(inputs.flatten(1) + self.first_rows, self.weights["model.embed_tokens.weight"].flatten(0, 1))
        for layer in range(self.settings.layers):
            at = f"model.layers.{layer}"
            x = x + self._attention(self._norm(x, f"{at}.input_layernorm"), f"{at}.self_attn", inputs.shape[1])
            x = x + self._swiglu(self._norm(x, f"{at}.post_attention_layernorm"), f"{at}.mlp")
        logits = self._linear(self._norm(x, "model.norm"), "lm_head")  # (K, B T, vocabulary)
        of_tokens = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return of_tokens.view(len(self.runs), -1).mean(1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return torch.bmm(x, self.weights[f"{name}.weight"].transpose(1, 2))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=NORM_EPSILON) * self.weights[f"{name}.weight"][:, None]

    def _attention(self, x: Tensor, name: str, batch: int) -> Tensor:
        heads, length = self.settings.heads, x.shape[1] // batch
        q, k, v = (
            self._linear(x, f"{name}.{letter}_proj").view(len(x) * batch, length, heads, -1).transpose(1, 2)
            for letter in "qkv"  # (K B, heads, T, head size)
        )
        q, k = rotate(q, self.cos, self.sin), rotate(k, self.cos, self.sin)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._linear(mixed.transpose(1, 2).reshape(x.shape), f"{name}.o_proj")

    def _swiglu(self, x: Tensor, name: str) -> Tensor:
        return self._linear(
            F.silu(self._linear(x, f"{name}.gate_proj")) * self._linear(x, f"{name}.up_proj"), f"{name}.down_proj"
        )


def _pieces(flat: Tensor, like: list[nn.Parameter]) -> list[Tensor]:
    """Views (K, *shape) of rows (K, weights), one for each of `like`."""
    parts = flat.split([weight.numel() for weight in like], dim=1)
    return [part.view(len(flat), *weight.shape).detach() for part, weight in zip(parts, like, strict=True)]


def corpus(vocabulary: int) -> Tokens:
    """Tokens of a skewed draw: something to learn."""
    tokens = (np.random.default_rng(0).zipf(1.3, size=200_000) % vocabulary).astype("<u2")
    of_corpus = {"vocabulary": vocabulary, "end_of_text": 0, "unigram_entropy": np.log(vocabulary)}
    return Tokens(train=tokens, validation=tokens[:20_000], **of_corpus)


def separate_trials(shape: str, tokens: Tokens, steps: int) -> list[Fit]:
    """The study's own fits, one for each rate, with seeds of their own."""
    training = TrainingSettings(steps=steps, validate_every=steps, clip=CLIP)
    runs = [
        Run(model=SHAPES[shape], training=training, rate=rate, seed=seed, identity="{}")
        for seed, rate in enumerate(RATES)
    ]
    fits = [Fit(run, tokens, CPU) for run in runs]
    for fit in fits:
        fit.prepare(Choices(fused=True))
    return fits


def difference(stacked: StackedTrials, fits: list[Fit]) -> dict[str, float]:
    """How far the stacked trials end from the same ones trained apart, after CHECKED_STEPS of both."""
    steps = [stacked.advance() for _ in range(CHECKED_STEPS)]
    losses, norms = (torch.stack(column, dim=1) for column in zip(*steps, strict=True))
    apart_losses, apart_norms = (
        torch.stack([getattr(fit, name)[:CHECKED_STEPS] for fit in fits]) for name in ("losses", "grad_norms")
    )
    apart_weights = [dict(fit.model.named_parameters()) for fit in fits]
    rows = torch.stack([torch.cat([model[n].detach().flatten() for n in stacked.names]) for model in apart_weights])
    return {
        "largest_loss_difference": float((losses - apart_losses).abs().max()),
        "largest_relative_norm_difference": float((norms / apart_norms - 1).abs().max()),
        "largest_relative_weights_difference": float(((stacked.flat - rows).norm(dim=1) / rows.norm(dim=1)).max()),
        "clipped_share": float((apart_norms > CLIP).float().mean()),
    }


def compare(stacked: StackedTrials, fits: list[Fit], repeats: int) -> dict[str, Any]:
    """Tokens a CPU second both ways, from medians over blocks in turn, and the median of the blocks' ratios."""
    steps = BLOCK_STEPS[len(fits)]

    def at_once() -> None:
        for _ in range(steps):
            stacked.advance()

    def one_after_another() -> None:
        for fit in fits:
            for _ in range(steps):
                fit.advance()

    ways = {"stacked": at_once, "separate": one_after_another}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats):  # the check has warmed up both ways
        for way in sorted(ways, reverse=bool(repeat % 2)):
            began = time.process_time()
            ways[way]()
            seconds[way].append(time.process_time() - began)
    tokens = steps * sum(fit.tokens_per_step for fit in fits)
    ratios = [apart / together for together, apart in zip(seconds["stacked"], seconds["separate"], strict=True)]
    return {
        **{f"{way}_tokens_per_cpu_second": tokens / statistics.median(taken) for way, taken in seconds.items()},
        "ratio": statistics.median(ratios),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
        **{f"{way}_block_cpu_seconds": taken for way, taken in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    candidates: dict[tuple[str, int], tuple[StackedTrials, list[Fit]]] = {}
    figures: dict[str, dict[str, Any]] = {shape: {} for shape in SHAPES}
    for shape, settings in SHAPES.items():
        tokens = corpus(settings.vocabulary)
        fits = separate_trials(shape, tokens, CHECKED_STEPS + options.repeats * sum(BLOCK_STEPS.values()))
        for count in TRIALS:
            candidates[shape, count] = StackedTrials(fits[:count], tokens), fits[:count]
        for fit in fits:
            for _ in range(CHECKED_STEPS):
                fit.advance()
        for count in TRIALS:
            found = figures[shape][f"{count} trials"] = difference(*candidates[shape, count])
            # the negation, so that a difference of nan is one too
            if not all(value <= TOLERANCE for name, value in found.items() if name.endswith("difference")):
                sys.exit(f"{shape}, {count} trials: stacked training differs from separate training: {found}")
    for (shape, count), pair in candidates.items():
        found = figures[shape][f"{count} trials"]
        found |= compare(*pair, options.repeats)
        print(
            f"{shape}, {count} trials: tokens a CPU second stacked {found['stacked_tokens_per_cpu_second']:,.0f},"
            f" separate {found['separate_tokens_per_cpu_second']:,.0f}; ratio {found['ratio']:.2f}"
            f" ({found['lowest_ratio']:.2f} to {found['highest_ratio']:.2f});"
            f" weights within {found['largest_relative_weights_difference']:.1g}",
            flush=True,
        )
    won = [f"{s}, {t}" for s, rows in figures.items() for t, found in rows.items() if found["ratio"] >= MARGIN]
    print(f"stacking pays, {MARGIN:g} × as fast or more: {'; '.join(won) or 'nowhere on this machine'}")
    write_json(options.output, {"benchmark": "stacked", "figures": figures, "machine": describe_machine()})


if __name__ == "__main__":
    main()
