"""Token files, read through a memory map, and the windows that training and validation take from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.core.files import read_json

DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A corpus as tokens. The two sides are memory maps: opening them reads nothing."""

    train: NDArray[Any]
    validation: NDArray[Any]
    vocabulary: int
    end_of_text: int
    unigram_entropy: float
    """Nats a token: what a model that knows only how often each token occurs would reach on the validation side."""


def open_tokens(folder: Path) -> Tokens:
    """The tokens in `folder`. Raises UserError when a file is missing, was cut, or is of an unknown type."""
    place = folder / "meta.json"
    meta = read_json(place)
    dtype = DTYPES.get(meta["dtype"])
    if dtype is None:
        raise UserError(f"{place}: dtype is {meta['dtype']!r}; it can be {' or '.join(DTYPES)}")
    return Tokens(
        train=_open(folder / "train.bin", dtype, meta["train_tokens"]),
        validation=_open(folder / "validation.bin", dtype, meta["validation_tokens"]),
        vocabulary=meta["vocabulary"],
        end_of_text=meta["end_of_text"],
        unigram_entropy=meta["unigram_entropy_nats"],
    )


def _open(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    if not path.exists():
        raise UserError(f"{path}: does not exist; delete {path.parent} to have the tokens rebuilt")
    if (size := path.stat().st_size) != (expected := count * dtype.itemsize):
        raise UserError(
            f"{path}: has {size} bytes and should have {expected} ({count} tokens): it was cut or changed;"
            f" delete {path.parent} to have the tokens rebuilt"
        )
    return np.memmap(path, dtype=dtype, mode="r")


class TrainingWindows:
    """Batches of windows at random places of the training tokens, drawn by a generator of their own.

    The draws are made on the CPU and in NumPy, so that they depend on nothing but the seed and on how many there were.
    """

    def __init__(self, tokens: NDArray[Any], *, batch: int, context: int, seed: int, device: torch.device) -> None:
        if len(tokens) <= context:
            raise UserError(f"the corpus has {len(tokens)} training tokens, model.context + 1 is {context + 1}")
        self.tokens, self.batch, self.device = tokens, batch, device
        self.offsets = np.arange(context + 1)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next inputs and targets, int64 (batch, context) each, on the device."""
        places = len(self.tokens) - len(self.offsets) + 1
        starts = torch.randint(places, (self.batch,), generator=self.generator).numpy()
        return _inputs_and_targets(self.tokens[starts[:, None] + self.offsets], self.device)

    def blank(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets laid out as those of `draw`, of tokens 0; draws nothing."""
        return _inputs_and_targets(np.zeros((self.batch, len(self.offsets)), np.int64), self.device)

    @property
    def position(self) -> Tensor:
        """Where in the stream of draws the next one is: the generator's state."""
        return self.generator.get_state()

    @position.setter
    def position(self, state: Tensor) -> None:
        self.generator.set_state(state)


def validation_batches(
    tokens: NDArray[Any], *, windows: int, batch: int, context: int, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets, int64 (≤ batch, context), of `windows` windows evenly spread: the same for every trial.

    Of tokens that hold fewer windows side by side, all of those.
    """
    if len(tokens) <= context:
        raise UserError(f"the corpus has {len(tokens)} validation tokens, model.context + 1 is {context + 1}")
    windows = min(windows, (len(tokens) - 1) // context)
    starts = np.linspace(0, len(tokens) - context - 1, windows).astype(np.int64)
    rows = tokens[starts[:, None] + np.arange(context + 1)]
    return [_inputs_and_targets(rows[first : first + batch], device) for first in range(0, windows, batch)]


def _inputs_and_targets(rows: NDArray[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    held = torch.from_numpy(rows.astype(np.int64))
    if device.type == "cuda":  # pinned, so that the copy does not wait for the kernels before it
        held = held.pin_memory().to(device, non_blocking=True)
    return held[:, :-1], held[:, 1:]
