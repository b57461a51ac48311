"""One run of the classifier in ordinary torch modules: the reference for the stacked training."""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from plumbline.ablation.classifier.draws import (
    batch_rows,
    blocks,
    draw_masks,
    generator_of,
    initial_weights,
    row_order,
)
from plumbline.ablation.classifier.result import Curves, RunResult, run_result
from plumbline.ablation.classifier.splits import SIDES, Split
from plumbline.ablation.classifier.standardise import check_finite, scaling
from plumbline.ablation.settings import ClassifierSettings


class Perceptron(nn.Module):
    """`layers` × (Linear without bias, BatchNorm, ReLU, Dropout), Linear; starts from the run's initial weights."""

    def __init__(
        self,
        width: int,
        classes: int,
        settings: ClassifierSettings,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        weights, bias = initial_weights(width, classes, settings, dtype, generator)

        def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
            layer.weight = nn.Parameter(weight)
            if bias is not None:
                layer.bias = nn.Parameter(bias)
            return layer

        self.hidden = nn.ModuleList(linear(weight) for weight in weights[:-1])
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(settings.hidden, dtype=dtype, device=generator.device) for _ in self.hidden
        )
        self.output = linear(weights[-1], bias)

    def forward(self, x: Tensor, masks: Tensor | None) -> Tensor:
        """Logits (b, C) of rows x (b, W); masks (layers, hidden, b), or None for no dropout."""
        for number, (layer, norm) in enumerate(zip(self.hidden, self.norms, strict=True)):
            x = functional.relu(norm(layer(x)))
            if masks is not None:
                x = x * masks[number].T
        logits: Tensor = self.output(x)
        return logits


def fit_single(
    features: NDArray[Any],
    labels: NDArray[Any],
    split: Split,
    classes: int,
    settings: ClassifierSettings,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[RunResult, Perceptron]:
    """One run, and its network with the weights of the best epoch.

    features: (N, W) float32 or float64, whose dtype is used for training; labels: (N,) in 0 … classes − 1.
    `progress` is called after each epoch with (epochs done, 1).
    Raises UserError when no column varies over the training rows, or a value is not finite.
    """
    began = time.perf_counter()
    check_finite(features)
    scale = scaling(features, split.train)
    kept = scale.kept
    raw = torch.from_numpy(features[:, kept])
    x = (raw - torch.from_numpy(scale.mean[kept]).to(raw.dtype)) * torch.from_numpy(scale.inverse[kept]).to(raw.dtype)
    x, y = x.to(device), torch.from_numpy(labels.astype(np.int64)).to(device)
    rows = {side: torch.from_numpy(getattr(split, side)).to(device) for side in SIDES}
    generator = generator_of(seed, device)
    network = Perceptron(x.shape[1], classes, settings, x.dtype, generator)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=settings.plateau_factor, patience=settings.plateau_patience
    )
    curves = Curves()
    best_accuracy, best_epoch, best_state, diverged = -1.0, 0, network.state_dict(), False
    for epoch in range(1, settings.max_epochs + 1):
        rate = optimizer.param_groups[0]["lr"]
        order = rows["train"][row_order(len(split.train), generator)]
        loss, accuracy = _train_epoch(network, optimizer, x, y, order, settings, generator)
        diverged = not math.isfinite(loss)
        if diverged:
            break
        validated = float((_predict(network, x[rows["validation"]]) == y[rows["validation"]]).double().mean())
        curves.train_loss.append(loss)
        curves.train_accuracy.append(accuracy)
        curves.validation_accuracy.append(validated)
        curves.learning_rate.append(rate)
        plateau.step(validated)
        if validated > best_accuracy:
            best_accuracy, best_epoch, best_state = validated, epoch, deepcopy(network.state_dict())
        if progress is not None:
            progress(epoch, 1)
        if epoch - best_epoch >= settings.patience:
            break
    network.load_state_dict(best_state)
    predictions = {
        side: (y[index].cpu().numpy(), _predict(network, x[index]).cpu().numpy()) for side, index in rows.items()
    }
    result = run_result(
        seed=seed,
        predictions=None if diverged else predictions,
        classes=classes,
        best_epoch=best_epoch,
        epochs=len(curves.train_loss),
        seconds=time.perf_counter() - began,
        feature_width=int(kept.sum()),
        curves=curves,
    )
    return result, network


def _train_epoch(
    network: Perceptron,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    order: Tensor,
    settings: ClassifierSettings,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Mean loss and accuracy over the rows trained on."""
    network.train()
    loss_sum, hits, seen = x.new_zeros(()), x.new_zeros(()), 0
    units = settings.layers * settings.hidden
    for start, end in blocks(len(order), settings.batch_size):
        masks = x.new_empty((end - start) * units)
        if settings.dropout > 0:
            draw_masks(masks, settings, generator)
        for first in range(start, end, settings.batch_size):
            count = batch_rows(len(order), first, settings.batch_size)
            if count == 0:
                continue
            batch = order[first : first + count]
            chunk = masks[(first - start) * units : (first - start + count) * units]
            mask = chunk.view(settings.layers, settings.hidden, count) if settings.dropout > 0 else None
            logits = network(x[batch], mask)
            loss = functional.cross_entropy(logits, y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * count
            hits += (logits.argmax(dim=1) == y[batch]).sum()
            seen += count
    return float(loss_sum) / seen, float(hits) / seen


@torch.no_grad()
def _predict(network: Perceptron, x: Tensor) -> Tensor:
    network.eval()
    return network(x, None).argmax(dim=1)
