"""The classifier `transformer`: a small Transformer encoder over canonical tokens, all runs trained at once.

Parameters carry a leading axis of runs, and every run's loss depends on its own alone, so that the gradient of the sum
of the losses is that of each. The encoder is pre-norm (Xiong et al. 2020, arXiv 2002.04745) with GELU and mean pooling.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from plumbline.ablation.classifier.draws import generator_of, row_order
from plumbline.ablation.classifier.result import Curves, RunResult, run_result
from plumbline.ablation.classifier.splits import SIDES, Split
from plumbline.ablation.classifier.standardise import check_finite, scaling
from plumbline.ablation.settings import TransformerSettings
from plumbline.core.training.adamw import AdamW

ROWS_AT_ONCE = 256
"""Rows predicted at once."""
INITIAL_DEVIATION = 0.02
FEW_TOKENS = 32
"""Up to this many tokens, batched products are faster on a CPU than torch's fused attention, and their scores small."""

Parameters = Mapping[str, Tensor]
"""Name -> (R, …) for R runs."""


def fit_transformer(
    features: NDArray[Any],
    labels: NDArray[Any],
    splits: Sequence[Split],
    classes: int,
    settings: TransformerSettings,
    seeds: Sequence[int],
    token_width: int,
    device: torch.device,
    progress: Callable[[], None],
) -> list[RunResult]:
    """One run for each split and seed.

    features: (N, T · token_width), T tokens an adapter; labels: (N,) in 0 … classes − 1. Each column is standardised by
    the run's training rows; tokens that are constant in all runs are dropped. `progress` is called after each epoch.
    Raises UserError when no column varies over a run's training rows, or a value is not finite.
    """
    began = time.perf_counter()
    check_finite(features)
    trainer = _Trainer(features, labels, splits, classes, settings, seeds, token_width, device)
    for epoch in range(settings.epochs):
        trainer.train_epoch(epoch)
        trainer.validate()
        progress()
    return trainer.results(began)


class _Trainer:
    """The state of all runs.

    A run's network, split and random numbers are its own. Three things are common, and so depend on the runs beside it:
    the steps of an epoch and the rows of a step (those of the smallest training side), and the tokens that are kept.
    """

    def __init__(
        self,
        features: NDArray[Any],
        labels: NDArray[Any],
        splits: Sequence[Split],
        classes: int,
        settings: TransformerSettings,
        seeds: Sequence[int],
        token_width: int,
        device: torch.device,
    ) -> None:
        self.settings, self.splits, self.seeds, self.classes = settings, splits, seeds, classes
        scalings = [scaling(features, one.train) for one in splits]
        shape = (-1, features.shape[1] // token_width, token_width)
        varies = np.any([one.kept for one in scalings], axis=0).reshape(shape).any(axis=(0, 2))

        def by_token(columns: NDArray[Any]) -> Tensor:
            return torch.from_numpy(columns.reshape(shape)[:, varies].astype(np.float32)).to(device)

        self.table, self.labels = by_token(features), torch.from_numpy(np.array(labels, np.int64)).to(device)
        self.mean = torch.stack([by_token(one.mean) for one in scalings])
        self.inverse = torch.stack([by_token(one.inverse) for one in scalings])
        self.widths = [int(one.kept.sum()) for one in scalings]
        self.rows = {side: [torch.from_numpy(getattr(split, side)).to(device) for split in splits] for side in SIDES}
        self.generators = [generator_of(seed, device) for seed in seeds]
        networks = [
            initial_parameters(token_width, self.table.shape[1], classes, settings, one) for one in self.generators
        ]
        self.parameters = {name: torch.stack([one[name] for one in networks]).requires_grad_() for name in networks[0]}
        self.optimizer = AdamW(
            self.parameters.values(), beta1=0.9, beta2=0.999, weight_decay=settings.weight_decay, fused=True
        )
        self.steps_per_epoch = max(1, min(len(split.train) for split in splits) // settings.batch_size)
        self.best = {name: tensor.detach().clone() for name, tensor in self.parameters.items()}
        self.best_accuracy, self.best_epoch = [-1.0] * len(splits), [0] * len(splits)
        self.diverged = [False] * len(splits)
        self.curves: list[dict[str, list[float]]] = [{name: [] for name in Curves.model_fields} for _ in splits]

    def train_epoch(self, epoch: int) -> None:
        """As many steps as the smallest training side has whole batches, each run in an order of its own."""
        settings, runs = self.settings, len(self.splits)
        orders = [
            rows[row_order(len(rows), generator)]
            for rows, generator in zip(self.rows["train"], self.generators, strict=True)
        ]
        size = min(settings.batch_size, *map(len, orders))
        losses, hits = torch.zeros(runs), torch.zeros(runs)
        for step in range(self.steps_per_epoch):
            rate = self._rate(epoch * self.steps_per_epoch + step)
            rows = torch.stack([order[step * size : (step + 1) * size] for order in orders])
            inputs = self._inputs(rows)
            hidden = torch.stack(
                [
                    torch.rand(inputs.shape[1:3], generator=generator, device=inputs.device)
                    for generator in self.generators
                ]
            ).lt(settings.token_dropout)
            scores = encode(self.parameters, inputs.masked_fill(hidden[..., None], 0.0), settings)
            truth = self.labels[rows]
            loss = functional.cross_entropy(scores.flatten(0, 1), truth.flatten(), reduction="none").view_as(truth)
            loss.mean(1).sum().backward()
            self.optimizer.step(rate)
            self.optimizer.clear()
            losses += loss.detach().mean(1).cpu()
            hits += (scores.argmax(2) == truth).float().mean(1).cpu()
        for run, curves in enumerate(self.curves):
            self.diverged[run] |= not math.isfinite(losses[run])
            if not self.diverged[run]:
                curves["train_loss"].append(float(losses[run]) / self.steps_per_epoch)
                curves["train_accuracy"].append(float(hits[run]) / self.steps_per_epoch)
                curves["learning_rate"].append(rate)

    def validate(self) -> None:
        """Scores every run on its validation rows, and keeps a copy of the networks that are better than before."""
        for run, (truth, predicted) in enumerate(self._predicted(self.parameters, "validation")):
            if self.diverged[run]:
                continue
            accuracy, curves = float((truth == predicted).mean()), self.curves[run]
            curves["validation_accuracy"].append(accuracy)
            if accuracy > self.best_accuracy[run]:
                self.best_accuracy[run], self.best_epoch[run] = accuracy, len(curves["validation_accuracy"])
                for name, tensor in self.best.items():
                    tensor[run] = self.parameters[name].detach()[run]

    def results(self, began: float) -> list[RunResult]:
        """The results of the best networks, in the order of the splits."""
        found = {side: self._predicted(self.best, side) for side in SIDES}
        share = (time.perf_counter() - began) / len(self.splits)
        return [
            run_result(
                classifier="transformer",
                seed=seed,
                split=split,
                predictions=None if self.diverged[run] else {side: pairs[run] for side, pairs in found.items()},
                classes=self.classes,
                best_epoch=self.best_epoch[run],
                epochs=len(self.curves[run]["train_loss"]),
                seconds=share,
                feature_width=self.widths[run],
                curves=Curves(**self.curves[run]),
            )
            for run, (seed, split) in enumerate(zip(self.seeds, self.splits, strict=True))
        ]

    def _rate(self, step: int) -> float:
        """The learning rate: a linear warm-up over a tenth of the steps, then a cosine to zero."""
        total = self.settings.epochs * self.steps_per_epoch
        warmup = max(1, total // 10)
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, total - warmup)))
        return self.settings.learning_rate * min((step + 1) / warmup, cosine)

    def _inputs(self, rows: Tensor) -> Tensor:
        """The standardised tokens (R, B, T, F) of the rows (R, B) of each run."""
        return (self.table[rows] - self.mean) * self.inverse

    @torch.no_grad()
    def _predicted(self, parameters: Parameters, side: str) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """True and predicted classes of each run's rows on a side; shorter sides are filled up while predicting."""
        sides = self.rows[side]
        padded = torch.nn.utils.rnn.pad_sequence(sides, batch_first=True)
        chunks = padded.split(ROWS_AT_ONCE, dim=1)
        classes = [encode(parameters, self._inputs(rows), self.settings).argmax(2) for rows in chunks]
        predicted, labels = torch.cat(classes, dim=1).cpu().numpy(), self.labels.cpu().numpy()
        return [(labels[rows.cpu().numpy()], predicted[run, : len(rows)]) for run, rows in enumerate(sides)]


def initial_parameters(
    token_width: int, tokens: int, classes: int, settings: TransformerSettings, generator: torch.Generator
) -> dict[str, Tensor]:
    """The parameters of one run: uniform in ±1/√in as torch.nn.Linear, small Gaussian positions, unit gains."""
    width, device = settings.width, generator.device
    parameters = {"position": torch.randn(1, tokens, width, generator=generator, device=device) * INITIAL_DEVIATION}
    shapes = {"embed": (token_width, width)}
    for layer in range(settings.layers):
        shapes |= {f"{layer}.attend": (width, 3 * width), f"{layer}.join": (width, width)}
        shapes |= {f"{layer}.widen": (width, 4 * width), f"{layer}.narrow": (4 * width, width)}
    for name, (inputs, outputs) in (shapes | {"score": (width, classes)}).items():
        bound = 1 / math.sqrt(inputs)
        empty = torch.empty(inputs, outputs, device=device)
        parameters[name] = empty.uniform_(-bound, bound, generator=generator)
        parameters[f"{name}.bias"] = torch.zeros(1, outputs, device=device)
    for name in (*(f"{layer}.{part}" for layer in range(settings.layers) for part in ("first", "second")), "last"):
        parameters[f"{name}.gain"] = torch.ones(1, 1, width, device=device)
    return parameters


def encode(parameters: Parameters, tokens: Tensor, settings: TransformerSettings) -> Tensor:
    """The scores (R, B, C) of the tokens (R, B, T, F), each run with its own parameters."""

    def linear(name: str, x: Tensor) -> Tensor:
        weight, bias = parameters[name], parameters[f"{name}.bias"]
        return torch.baddbmm(bias, x.reshape(len(x), -1, x.shape[-1]), weight).unflatten(1, x.shape[1:-1])

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:]) * parameters[f"{name}.gain"]

    x = linear("embed", tokens) + parameters["position"]
    for layer in range(settings.layers):
        heads = linear(f"{layer}.attend", norm(f"{layer}.first", x)).unflatten(-1, (3, settings.heads, -1))
        mixed = attend(*heads.flatten(0, 1).permute(2, 0, 3, 1, 4))
        x = x + linear(f"{layer}.join", mixed.transpose(1, 2).reshape(x.shape))
        x = x + linear(f"{layer}.narrow", functional.gelu(linear(f"{layer}.widen", norm(f"{layer}.second", x))))
    return linear("score", norm("last", x).mean(2))


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention, not masked: (N, heads, T, head size) each → the same shape."""
    if queries.shape[2] > FEW_TOKENS:
        return functional.scaled_dot_product_attention(queries, keys, values)
    q, k, v = (part.flatten(0, 1) for part in (queries, keys, values))
    scores = torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=q.shape[2] ** -0.5)
    return torch.bmm(scores.softmax(2), v).view_as(queries)
