"""The state of a stacked fit on disk, so that a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from plumbline.ablation.classifier.result import Curves
from plumbline.ablation.classifier.splits import SIDES, Split
from plumbline.ablation.settings import ClassifierSettings
from plumbline.core.errors import UserError
from plumbline.core.files import atomic

if TYPE_CHECKING:
    from plumbline.ablation.classifier.stacked import StackedFit

log = logging.getLogger("plumbline")

STACK_TENSORS = ("flat", "first_moment", "second_moment", "steps", "mean", "variance")
BEST_TENSORS = ("best_flat", "best_mean", "best_variance")


def fingerprint(
    features: NDArray[Any],
    labels: NDArray[Any],
    splits: list[Split],
    settings: ClassifierSettings,
    seeds: list[int],
    device: torch.device,
) -> str:
    """A hash of all that decides a fit."""
    digest = hashlib.sha256(
        json.dumps([settings.model_dump(), seeds, str(device), str(features.dtype), features.shape]).encode()
    )
    arrays = [features, labels, *(getattr(split, side) for split in splits for side in SIDES)]
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def save(path: Path, fit: StackedFit, mark: str) -> None:
    """Writes the state of `fit` to `path`, whole or not at all."""
    runs = [asdict(run) for run in fit.runs]
    state = {
        "mark": mark,
        "epoch": fit.epoch,
        "seconds": fit.seconds,
        "active": fit.active,
        "runs": runs,
        "generators": [generator.get_state() for generator in fit.generators],
        "stack": {name: getattr(fit.stack, name) for name in STACK_TENSORS},
        "best": {name: getattr(fit, name) for name in BEST_TENSORS},
    }
    with atomic(path) as partial:
        torch.save(state, partial)


def load(path: Path, fit: StackedFit, mark: str) -> None:
    """Sets `fit`, freshly made, to the state at `path`, if there is one and it is of the same fit.

    Raises UserError when the file is not a checkpoint.
    """
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: is not a checkpoint ({error}); delete it to start the fit from the beginning"
        ) from error
    if state["mark"] != mark:
        log.warning("%s is of other data, splits, seeds or settings: the fit starts from its beginning", path)
        return
    fit.epoch, fit.seconds, fit.active = state["epoch"], state["seconds"], state["active"]
    for run, kept in zip(fit.runs, state["runs"], strict=True):
        curves = Curves(**kept.pop("curves"))
        for name, value in {**kept, "curves": curves}.items():
            setattr(run, name, value)
    for generator, words in zip(fit.generators, state["generators"], strict=True):
        generator.set_state(words)
    for name in BEST_TENSORS:
        getattr(fit, name).copy_(state["best"][name])
    fit.stack.keep(torch.tensor(fit.active, dtype=torch.int64, device=fit.device))
    for name in STACK_TENSORS:
        getattr(fit.stack, name).copy_(state["stack"][name])
