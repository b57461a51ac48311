"""The checkpoint of a stacked training, so that a killed one resumes to the same bits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from plumbline.ablation.classifier.result import Curves
from plumbline.ablation.classifier.splits import SIDES, Split
from plumbline.ablation.settings import ClassifierSettings
from plumbline.core.run.checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from plumbline.ablation.classifier.stacked import StackedTrainer

STACK_TENSORS = ("flat", "first_moment", "second_moment", "steps", "mean", "variance")
BEST_TENSORS = ("best_flat", "best_mean", "best_variance")


def identity(
    features: NDArray[Any],
    labels: NDArray[Any],
    splits: list[Split],
    settings: ClassifierSettings,
    seeds: list[int],
    device: torch.device,
) -> str:
    """A hash of everything that decides the result: data, splits, settings, seeds and device."""
    digest = hashlib.sha256(
        json.dumps([settings.model_dump(), seeds, str(device), str(features.dtype), features.shape]).encode()
    )
    arrays = [features, labels, *(getattr(split, side) for split in splits for side in SIDES)]
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def save(path: Path, trainer: StackedTrainer, identity: str) -> None:
    """Writes the state of `trainer` to `path`, whole or not at all."""
    state = {
        "epoch": trainer.epoch,
        "seconds": trainer.seconds,
        "active": trainer.active,
        "runs": [{**vars(run), "curves": run.curves.model_dump()} for run in trainer.runs],
        "generators": [generator.get_state() for generator in trainer.generators],
        "stack": {name: getattr(trainer.stack, name) for name in STACK_TENSORS},
        "best": {name: getattr(trainer, name) for name in BEST_TENSORS},
    }
    save_checkpoint(path, identity, state)


def resume(path: Path, trainer: StackedTrainer, identity: str) -> None:
    """Puts the new `trainer` into the state at `path`, if one is there and belongs to the same training.

    Raises UserError when the file is not a checkpoint.
    """
    state = load_checkpoint(path, identity)
    if state is None:
        return
    trainer.epoch, trainer.seconds, trainer.active = state["epoch"], state["seconds"], state["active"]
    for run, saved in zip(trainer.runs, state["runs"], strict=True):
        vars(run).update(saved, curves=Curves(**saved["curves"]))
    for generator, saved in zip(trainer.generators, state["generators"], strict=True):
        generator.set_state(saved)
    for name in BEST_TENSORS:
        getattr(trainer, name).copy_(state["best"][name])
    trainer.stack.keep(torch.tensor(trainer.active, dtype=torch.int64, device=trainer.device))
    for name in STACK_TENSORS:
        getattr(trainer.stack, name).copy_(state["stack"][name])
