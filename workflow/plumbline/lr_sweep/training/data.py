"""Memory-mapped token files, and the windows of tokens that training and validation read from them."""

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
    """A corpus as tokens. Both sides are memory maps: opening them reads nothing."""

    train: NDArray[Any]
    validation: NDArray[Any]
    vocabulary: int
    end_of_text: int
    unigram_entropy: float
    """Validation loss in nats per token of a model that knows only how often each token occurs."""


def open_tokens(folder: Path) -> Tokens:
    """The tokens in `folder`. Raises UserError when a file is missing, truncated or of an unknown type."""
    path = folder / "meta.json"
    meta = read_json(path)
    dtype = DTYPES.get(meta["dtype"])
    if dtype is None:
        raise UserError(f"{path}: dtype is {meta['dtype']!r}, not {' or '.join(DTYPES)}; delete it to have it rebuilt")
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
            f"{path}: has {size} bytes instead of {expected} ({count} tokens), so it was truncated or changed;"
            f" delete {path.parent} to have the tokens rebuilt"
        )
    return np.memmap(path, dtype=dtype, mode="r")


class TrainingWindows:
    """Batches of windows at random positions in the training tokens, drawn from a separate generator.

    Positions are drawn on the CPU, so they depend only on the seed and on the number of earlier draws.
    """

    def __init__(self, tokens: NDArray[Any], *, batch: int, context: int, seed: int, device: torch.device) -> None:
        if len(tokens) <= context:
            raise _too_short("training", len(tokens), context)
        self.tokens, self.batch, self.device = tokens, batch, device
        self.offsets = np.arange(context + 1)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next inputs and targets, int64 (batch, context) each, on the device."""
        places = len(self.tokens) - len(self.offsets) + 1
        starts = torch.randint(places, (self.batch,), generator=self.generator).numpy()
        return _inputs_and_targets(self.tokens[starts[:, None] + self.offsets], self.device)

    def blank(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of zeros with the layout of `draw`; draws nothing."""
        return _inputs_and_targets(np.zeros((self.batch, len(self.offsets)), np.int64), self.device)

    @property
    def position(self) -> Tensor:
        """Position in the stream of draws: the generator's state."""
        return self.generator.get_state()

    @position.setter
    def position(self, state: Tensor) -> None:
        self.generator.set_state(state)


def validation_batches(
    tokens: NDArray[Any], *, windows: int, batch: int, context: int, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets, int64 (≤ batch, context), of `windows` evenly spaced windows: the same for every trial.

    When the tokens hold fewer non-overlapping windows, that many.
    """
    if len(tokens) <= context:
        raise _too_short("validation", len(tokens), context)
    windows = min(windows, (len(tokens) - 1) // context)
    starts = np.linspace(0, len(tokens) - context - 1, windows).astype(np.int64)
    rows = tokens[starts[:, None] + np.arange(context + 1)]
    return [_inputs_and_targets(rows[first : first + batch], device) for first in range(0, windows, batch)]


def _too_short(side: str, count: int, context: int) -> UserError:
    return UserError(
        f"the corpus has {count} {side} tokens, fewer than model.context + 1 ({context + 1}); give more text"
    )


def _inputs_and_targets(rows: NDArray[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    held = torch.from_numpy(rows.astype(np.int64))
    if device.type == "cuda":  # pinned, so the copy does not wait for earlier kernels
        held = held.pin_memory().to(device, non_blocking=True)
    return held[:, :-1], held[:, 1:]
