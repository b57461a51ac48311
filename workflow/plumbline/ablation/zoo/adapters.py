"""Trains the zoo's adapters, a chunk at a time: each on a few images, of which the share `purity` shows one class.

Training uses the null prompt: a class name in a prompt would reach `attn2.to_v` and leak the label, so
only the images carry the class.

Adapter i is determined by (seed, i): its images, initial weights, noise and times are drawn from its own generator.
Batched arithmetic can differ in the last bit with the shape of the batch, so a chunk is always computed whole: an
adapter has the same bits whichever shard asks for it, on the same machine with the same threads.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plumbline.ablation.data.layers import DOWN
from plumbline.ablation.zoo.diffusion import NULL_PROMPT, Diffusion, flow_losses
from plumbline.ablation.zoo.images import CLASSES, SIDE, Cell, check_cells, digits, split_by_fold
from plumbline.ablation.zoo.lora import factor_shapes, factors_of, with_adapters
from plumbline.ablation.zoo.settings import AdapterSettings, DiffusionSettings
from plumbline.core.errors import UserError
from plumbline.core.training.adamw import AdamW

_ADAPTER_STREAM = 2


@dataclass(frozen=True, kw_only=True)
class Draws:
    """All random numbers of A adapters. factors: name → (A, …); images: ids (A, steps, batch);
    noise: (A, steps, batch, 8, 8); times: (A, steps, batch); image_ids: one array of ids per adapter."""

    labels: np.ndarray
    folds: np.ndarray
    image_ids: list[np.ndarray]
    factors: dict[str, np.ndarray]
    images: np.ndarray
    noise: np.ndarray
    times: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ZooChunk:
    """A trained adapters. factors: name → (A, rank, in) or (A, out, rank) float32; labels, folds, num_images: (A,)
    int64; image_ids: (A, image_count_max) int64, padded with −1; losses: (A, steps) float32, each before its step.
    """

    factors: dict[str, Tensor]
    labels: Tensor
    folds: Tensor
    num_images: Tensor
    image_ids: Tensor
    losses: Tensor


def label_of(index: int) -> int:
    """The class of adapter `index`: the classes alternate."""
    return index % len(CLASSES)


def fold_of(index: int, folds: int) -> int:
    """The fold of adapter `index`: it changes after each round of classes, which keeps all cells balanced."""
    return index // len(CLASSES) % folds


def draw(
    model: DiffusionSettings, settings: AdapterSettings, cells: list[list[Cell]], indices: range, seed: int
) -> Draws:
    """The random numbers of the adapters `indices`. cells: the digits by `split_by_fold`."""
    shapes = factor_shapes(model, settings.rank)
    shape = (len(indices), settings.steps, settings.batch)
    factors = {name: np.zeros((len(indices), *size), np.float32) for name, size in shapes.items()}
    labels = np.array([label_of(index) for index in indices])
    folds = np.array([fold_of(index, settings.folds) for index in indices])
    images, times = np.empty(shape, np.int64), np.empty(shape, np.float32)
    noise, image_ids = np.empty((*shape, SIDE, SIDE), np.float32), []
    for row, index in enumerate(indices):
        random = np.random.default_rng([_ADAPTER_STREAM, seed, index])
        count = int(random.integers(settings.image_count_min, settings.image_count_max, endpoint=True))
        cell, own = cells[labels[row]][folds[row]], settings.own_images(count)
        chosen = [random.choice(cell.own, own, replace=False), random.choice(cell.others, count - own, replace=False)]
        ids = np.sort(np.concatenate(chosen))
        image_ids.append(ids)
        seen = settings.steps * settings.batch
        passes = random.permuted(np.tile(ids, (-(-seen // count), 1)), axis=1)
        images[row] = passes.ravel()[:seen].reshape(shape[1:])
        for name, size in shapes.items():
            if name.endswith(DOWN):
                factors[name][row] = random.standard_normal(size, np.float32) / np.sqrt(np.float32(size[1]))
        noise[row] = random.standard_normal(noise.shape[1:], np.float32)
        times[row] = random.random(shape[1:], np.float32)
    return Draws(
        labels=labels, folds=folds, image_ids=image_ids, factors=factors, images=images, noise=noise, times=times
    )


def train_chunk(
    base: Diffusion,
    model: DiffusionSettings,
    settings: AdapterSettings,
    indices: range,
    seed: int,
    device: torch.device | str = "cpu",
) -> ZooChunk:
    """The adapters `indices`, all in one chunk (see `chunks_of`). The whole chunk is trained, even for a part of it.

    base: frozen, on `device`. The returned tensors are on the CPU.
    """
    first = indices.start // settings.chunk * settings.chunk
    whole = range(first, first + settings.chunk)
    if not len(indices) or indices.step != 1 or indices.stop > whole.stop:
        raise ValueError(f"{indices} is not within one chunk of {settings.chunk}")
    images = digits()
    cells = split_by_fold(images.labels, settings.folds, settings.purity, seed)
    own = settings.own_images(settings.image_count_max)
    check_cells(cells, own, settings.image_count_max - own)
    drawn = draw(model, settings, cells, whole, seed)
    factors, losses = _train(base, settings, drawn, torch.from_numpy(images.pixels), device)
    if not losses.isfinite().all():
        diverged = first + int((~losses.isfinite()).any(1).nonzero()[0, 0])
        raise UserError(
            f"ablation.zoo.adapter.learning_rate: adapter {diverged} diverges at {settings.learning_rate:g}; lower it"
        )
    kept = slice(indices.start - first, indices.stop - first)
    image_ids = np.full((len(whole), settings.image_count_max), -1, np.int64)
    for row, ids in enumerate(drawn.image_ids):
        image_ids[row, : len(ids)] = ids
    return ZooChunk(
        factors={name: factor[kept] for name, factor in factors.items()},
        labels=torch.from_numpy(drawn.labels)[kept],
        folds=torch.from_numpy(drawn.folds)[kept],
        num_images=torch.tensor([len(ids) for ids in drawn.image_ids])[kept],
        image_ids=torch.from_numpy(image_ids)[kept],
        losses=losses[kept],
    )


def chunks_of(count: int, chunk: int) -> list[range]:
    """The indices 0 … count − 1 in chunks. A shard is a run of chunks."""
    return [range(first, min(first + chunk, count)) for first in range(0, count, chunk)]


def _train(
    base: Diffusion, settings: AdapterSettings, drawn: Draws, pixels: Tensor, device: torch.device | str
) -> tuple[dict[str, Tensor], Tensor]:
    """The trained factors and the losses (A, steps), on the CPU."""
    start = {name: torch.from_numpy(factor).to(device) for name, factor in drawn.factors.items()}
    adapted = with_adapters(base, start, settings.scale)
    learning = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = AdamW(learning, beta1=0.9, beta2=0.999, weight_decay=0.0, fused=True)
    prompts = torch.full((len(drawn.labels),), NULL_PROMPT, device=device)
    # Step-major, so that each step reads one contiguous block.
    images = pixels[torch.from_numpy(drawn.images).transpose(0, 1)].to(device)
    noise = torch.from_numpy(drawn.noise).transpose(0, 1).contiguous().to(device)
    times = torch.from_numpy(drawn.times).transpose(0, 1).contiguous().to(device)
    losses = []
    for step in range(settings.steps):
        loss = flow_losses(adapted, images[step], noise[step], times[step], prompts)
        # A sum over adapters: an adapter is only in its own loss, so it gets the gradient of that one.
        loss.sum().backward()
        optimizer.step(settings.learning_rate)
        optimizer.clear()
        losses.append(loss.detach())
    return {name: factor.cpu() for name, factor in factors_of(adapted).items()}, torch.stack(losses, 1).cpu()
