"""Trains all runs of a trial at once.

Each run has its own initial weights, batch order, dropout masks, split, standardisation, learning rate and last epoch.
Runs are sorted by falling training size, so that runs whose batches have the same number of rows are adjacent: a step
is one stacked step for each such stretch of runs, without padding.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbline.ablation.classifier import checkpoint as checkpoints
from plumbline.ablation.classifier.draws import batch_rows, blocks, draw_masks, generator_of, row_order
from plumbline.ablation.classifier.result import Curves, RunResult, run_result
from plumbline.ablation.classifier.splits import SIDES, Split
from plumbline.ablation.classifier.stack import Shape, Stack, initial_stack
from plumbline.ablation.classifier.standardise import RESIDENT_BYTES, StandardisedRows
from plumbline.ablation.settings import ClassifierSettings

ROWS_AT_ONCE = 256  # rows of each run that are predicted in one product

ProgressCallback = Callable[[int, int], None]
"""Called after each epoch with (epochs done, runs still training)."""


@dataclass(kw_only=True)
class RunState:
    """The progress of one run."""

    seed: int
    learning_rate: float
    best_accuracy: float = -1.0
    best_epoch: int = 0
    plateau_best: float = -math.inf
    plateau_epochs: int = 0
    diverged: bool = False
    curves: Curves = field(default_factory=Curves)

    def finish_epoch(self, loss: float, accuracy: float, validated: float, settings: ClassifierSettings) -> bool:
        """Records an epoch and sets the next learning rate. Returns whether the epoch is the best so far.

        The schedule is torch's ReduceLROnPlateau(mode="max"), whose threshold is a ten-thousandth of the best.
        """
        self.curves.train_loss.append(loss)
        self.curves.train_accuracy.append(accuracy)
        self.curves.validation_accuracy.append(validated)
        self.curves.learning_rate.append(self.learning_rate)
        if validated > self.plateau_best * (1 + 1e-4):
            self.plateau_best, self.plateau_epochs = validated, 0
        else:
            self.plateau_epochs += 1
        if self.plateau_epochs > settings.plateau_patience:
            self.learning_rate, self.plateau_epochs = self.learning_rate * settings.plateau_factor, 0
        better = validated > self.best_accuracy
        if better:
            self.best_accuracy, self.best_epoch = validated, len(self.curves.train_loss)
        return better

    def over(self, settings: ClassifierSettings) -> bool:
        """Whether the run is finished."""
        epochs = len(self.curves.train_loss)
        return self.diverged or epochs >= settings.max_epochs or epochs - self.best_epoch >= settings.patience


class StackedTrainer:
    """The state of all runs: data, networks, and the best networks so far."""

    def __init__(
        self,
        features: NDArray[Any],
        labels: NDArray[Any],
        splits: list[Split],
        classes: int,
        settings: ClassifierSettings,
        seeds: list[int],
        device: torch.device,
        resident_bytes: int = RESIDENT_BYTES,
    ) -> None:
        self.settings, self.classes, self.device = settings, classes, device
        # internal order of the runs: largest training side first
        self.order = sorted(range(len(splits)), key=lambda run: -len(splits[run].train))
        self.splits = [splits[run] for run in self.order]
        self.runs = [RunState(seed=seeds[run], learning_rate=settings.learning_rate) for run in self.order]
        self.inputs = StandardisedRows(features, self.splits, device, resident_bytes)
        self.labels = torch.from_numpy(labels.astype(np.int64)).to(device)
        self.sides = {side: [torch.from_numpy(getattr(one, side)).to(device) for one in self.splits] for side in SIDES}
        self.generators = [generator_of(run.seed, device) for run in self.runs]
        shape = Shape(width=self.inputs.width, hidden=settings.hidden, layers=settings.layers, classes=classes)
        dtype = torch.from_numpy(features[:0]).dtype
        self.stack = initial_stack(shape, self.inputs.kept, settings, dtype, self.generators)
        self.best_flat = self.stack.flat.clone()
        self.best_mean, self.best_variance = (tensor.clone() for tensor in self.stack.running())
        self.active = list(range(len(self.runs)))
        self.epoch = 0
        self.seconds = 0.0

    def advance(self) -> None:
        """Trains every unfinished run for one epoch."""
        began = time.perf_counter()
        numbers = torch.tensor(self.active, device=self.device)
        losses, accuracies = self._train_epoch(numbers)
        validated = self._validation_accuracy(numbers)
        self.epoch += 1
        better = []
        for place, number in enumerate(self.active):
            run = self.runs[number]
            run.diverged = not math.isfinite(losses[place])
            if not run.diverged and run.finish_epoch(losses[place], accuracies[place], validated[place], self.settings):
                better.append(place)
        self._remember(better)
        going = [place for place, number in enumerate(self.active) if not self.runs[number].over(self.settings)]
        if len(going) < len(self.active):
            self.active = [self.active[place] for place in going]
            self.stack.keep(torch.tensor(going, dtype=torch.int64, device=self.device))
        self.seconds += time.perf_counter() - began

    def _remember(self, places: list[int]) -> None:
        """Copies the networks at these places of the stack into the best ones."""
        here = torch.tensor(places, dtype=torch.int64, device=self.device)
        there = torch.tensor([self.active[place] for place in places], dtype=torch.int64, device=self.device)
        mean, variance = self.stack.running()
        self.best_flat[there] = self.stack.flat[here]
        self.best_mean[there], self.best_variance[there] = mean[here], variance[here]

    def _train_epoch(self, numbers: Tensor) -> tuple[list[float], list[float]]:
        """Mean loss and accuracy of each active run over its training rows."""
        settings, sizes = self.settings, [len(self.splits[run].train) for run in self.active]
        rows = torch.zeros(len(sizes), sizes[0], dtype=torch.int64, device=self.device)
        for place, number in enumerate(self.active):
            order = row_order(sizes[place], self.generators[number])
            rows[place, : sizes[place]] = self.sides["train"][number][order]
        y, places = self.labels[rows], self.inputs.locate(numbers, rows)
        loss_sum = torch.zeros(len(sizes), dtype=self.stack.flat.dtype, device=self.device)
        hit_sum, seen = torch.zeros_like(loss_sum), [0] * len(sizes)
        units = settings.layers * settings.hidden
        for start, end in blocks(sizes[0], settings.batch_size):
            masks = self._masks(start, end, sizes)
            for first in range(start, end, settings.batch_size):
                counts = [batch_rows(size, first, settings.batch_size) for size in sizes]
                for low, high in _equal_stretches(counts):
                    count = counts[low]
                    batch = slice(first, first + count)
                    x = self.inputs.batch(numbers[low:high], places[low:high, batch])
                    mask = None
                    if masks is not None:
                        chunk = masks[low:high, (first - start) * units : (first - start + count) * units]
                        mask = chunk.unflatten(1, (settings.layers, settings.hidden, count))
                    loss, hits = self.stack.gradients(low, high, x, y[low:high, batch], mask)
                    loss_sum[low:high] += loss
                    hit_sum[low:high] += hits
                self._step([place for place, count in enumerate(counts) if count > 0])
                seen = [total + count for total, count in zip(seen, counts, strict=True)]
        losses = [total / count for total, count in zip(loss_sum.tolist(), seen, strict=True)]
        return losses, [total / count for total, count in zip(hit_sum.tolist(), seen, strict=True)]

    def _masks(self, start: int, end: int, sizes: list[int]) -> Tensor | None:
        """The dropout masks of a block, flattened, one row per active run; None without dropout."""
        if self.settings.dropout == 0:
            return None
        units = self.settings.layers * self.settings.hidden
        masks = torch.empty(len(sizes), (end - start) * units, dtype=self.stack.flat.dtype, device=self.device)
        for place, number in enumerate(self.active):
            rows = min(end, sizes[place]) - start
            if rows > 0:
                draw_masks(masks[place, : rows * units], self.settings, self.generators[number])
        return masks

    def _step(self, places: list[int]) -> None:
        """One Adam step of the networks at these places; those with the same learning rate take it together."""
        rates = [self.runs[self.active[place]].learning_rate for place in places]
        for rate in sorted(set(rates)):
            same = [place for place, place_rate in zip(places, rates, strict=True) if place_rate == rate]
            self.stack.adam_step(same, rate, self.settings.weight_decay)

    def _validation_accuracy(self, numbers: Tensor) -> list[float]:
        truth, predicted = self._predict(self.stack, numbers, "validation")
        hits = (truth == predicted).sum(dim=1).tolist()
        return [hit / len(self.splits[run].validation) for hit, run in zip(hits, self.active, strict=True)]

    def _predict(self, stack: Stack, numbers: Tensor, side: str) -> tuple[Tensor, Tensor]:
        """True and predicted classes (A, rows) on a side. Runs with fewer rows are padded with a true class of −1."""
        sides = [self.sides[side][number] for number in numbers.tolist()]
        rows = torch.nn.utils.rnn.pad_sequence(sides, batch_first=True)
        truth = torch.nn.utils.rnn.pad_sequence([self.labels[one] for one in sides], batch_first=True, padding_value=-1)
        places = self.inputs.locate(numbers, rows)
        chunks = places.split(ROWS_AT_ONCE, dim=1)
        return truth, torch.cat([stack.predict(self.inputs.batch(numbers, chunk)) for chunk in chunks], dim=1)

    def results(self) -> list[RunResult]:
        """The results in the order of the given splits, scored with the best networks."""
        began = time.perf_counter()
        best = Stack(self.stack.shape, self.best_flat, self.best_mean, self.best_variance)
        numbers = torch.arange(len(self.runs), device=self.device)
        found = {side: [tensor.cpu().numpy() for tensor in self._predict(best, numbers, side)] for side in SIDES}
        share = (self.seconds + time.perf_counter() - began) / len(self.runs)
        results = {}
        for number, run in enumerate(self.runs):
            predictions = {
                side: (truth[number][truth[number] >= 0], predicted[number][truth[number] >= 0])
                for side, (truth, predicted) in found.items()
            }
            results[self.order[number]] = run_result(
                seed=run.seed,
                predictions=None if run.diverged else predictions,
                classes=self.classes,
                best_epoch=run.best_epoch,
                epochs=len(run.curves.train_loss),
                seconds=share,
                feature_width=int(self.inputs.kept[number].sum()),
                curves=run.curves,
            )
        return [results[run] for run in range(len(self.runs))]


def fit_stacked(
    features: NDArray[Any],
    labels: NDArray[Any],
    splits: list[Split],
    classes: int,
    settings: ClassifierSettings,
    seeds: list[int],
    device: torch.device,
    progress: ProgressCallback | None = None,
    *,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> list[RunResult]:
    """One run for each split and seed, all trained at once.

    features: (N, W) float32 or float64, whose dtype is used for training; labels: (N,) in 0 … classes − 1.
    The state is saved to `checkpoint` at most every `checkpoint_seconds`; a training that finds its own state there
    resumes to the same bits. The caller removes it.
    Raises UserError when no column varies over a run's training rows, or a value is not finite.
    """
    began = time.perf_counter()
    trainer = StackedTrainer(features, labels, splits, classes, settings, seeds, device)
    trainer.seconds = time.perf_counter() - began
    identity = checkpoints.identity(features, labels, splits, settings, seeds, device) if checkpoint else ""
    if checkpoint is not None:
        checkpoints.resume(checkpoint, trainer, identity)
    saved = time.monotonic()
    while trainer.active:
        trainer.advance()
        if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
            checkpoints.save(checkpoint, trainer, identity)
            saved = time.monotonic()
        if progress is not None:
            progress(trainer.epoch, len(trainer.active))
    return trainer.results()


def _equal_stretches(counts: list[int]) -> list[tuple[int, int]]:
    """(low, high) of each stretch of equal, non-zero counts; `counts` never rises."""
    edges = [0, *(i for i in range(1, len(counts)) if counts[i] != counts[i - 1]), len(counts)]
    return [(low, high) for low, high in pairwise(edges) if counts[low] > 0]
