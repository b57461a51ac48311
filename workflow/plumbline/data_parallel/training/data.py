"""Token sequences, the order in which they are trained on, and each rank's share of a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor

from plumbline.core.files import read_json

Indices = NDArray[np.int64]
POOL = 16
"""Batches whose sequences are sorted by length before they are cut into batches: less padding, still a random order."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """The sequences `source <eos_de> target <eos_en>` of one split."""

    ids: NDArray[np.int32]
    """All of them, one after another."""
    offsets: Indices
    """(sequences + 1,): where each begins and ends."""
    prompts: Indices
    """(sequences,): tokens of the source with its end."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> Indices:
        """(sequences,): tokens of each."""
        return np.diff(self.offsets)

    @property
    def targets(self) -> Indices:
        """(sequences,): tokens of each that are predicted."""
        return self.lengths - self.prompts

    def row(self, index: int) -> NDArray[np.int32]:
        """The tokens of one."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """All splits, the sentences of those that are translated, and the ids of the ends."""

    splits: dict[str, Sequences]
    texts: dict[str, dict[str, list[str]]]
    vocabulary: int
    end_of_source: int
    end_of_target: int


class Batch(NamedTuple):
    """Padded sequences, and where their target tokens are predicted. The order of a model's arguments."""

    inputs: Tensor
    """int64 (sequences, longest): padding stands right, where causal attention never looks back at it."""
    places: Tensor
    """int64 (targets,): positions in the flattened inputs whose next token is a target."""
    targets: Tensor
    """int64 (targets,)."""


def open_tokens(meta: Path) -> Tokens:
    """The tokens that the stage `tokens` wrote beside `meta`."""
    described: dict[str, Any] = read_json(meta)
    arrays = load_file(meta.with_name("sequences.safetensors"))
    splits = {
        split: Sequences(**{name: arrays[f"{split}.{name}"] for name in ("ids", "offsets", "prompts")})
        for split in described["splits"]
    }
    ends = {name: described[name] for name in ("vocabulary", "end_of_source", "end_of_target")}
    return Tokens(splits=splits, texts=read_json(meta.with_name("texts.json")), **ends)


def batches(lengths: Indices, *, batch: int, seed: int, epoch: int) -> list[Indices]:
    """One epoch's batches of indices: every sequence once, in an order that only the arguments decide.

    Ranks and their number are no part of it. The last batch of the permutation may be smaller.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    cut: list[Indices] = []
    for first in range(0, len(order), POOL * batch):
        pool = order[first : first + POOL * batch]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        cut += [pool[start : start + batch] for start in range(0, len(pool), batch)]
    return [cut[place] for place in random.permutation(len(cut))]


def shard(batch: Indices, lengths: Indices, rank: int, world: int) -> Indices:
    """The sequences of `batch` that `rank` computes: dealt by length, there and back, so that all have equal work."""
    by_length = batch[np.argsort(-lengths[batch], kind="stable")]
    places = np.arange(len(by_length))
    turn, seat = np.divmod(places, world)
    dealt_to = np.where(turn % 2 == 0, seat, world - 1 - seat)
    return by_length[dealt_to == rank]


def collate(sequences: Sequences, indices: Sequence[int] | Indices, device: torch.device | str = "cpu") -> Batch:
    """The sequences as a batch; of none, a row that predicts nothing, so that a rank takes part all the same."""
    rows = [sequences.row(int(index)) for index in indices]
    longest = max([len(row) - 1 for row in rows], default=1)
    inputs = np.zeros((max(len(rows), 1), longest), np.int64)
    places, targets = [], []
    for number, (index, row) in enumerate(zip(indices, rows, strict=True)):
        inputs[number, : len(row) - 1] = row[:-1]
        first = int(sequences.prompts[int(index)]) - 1  # the end of the source predicts the first target token
        places.append(number * longest + np.arange(first, len(row) - 1))
        targets.append(row[first + 1 :])
    flat = [np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int64) for parts in (places, targets)]
    inputs_, places_, targets_ = (torch.from_numpy(array).to(device) for array in (inputs, *flat))
    return Batch(inputs_, places_, targets_)


def micro_batches(share: Indices, parts: int) -> list[Indices]:
    """A rank's share in `parts` micro-batches, the last of which may be empty."""
    return [part.astype(np.int64) for part in np.array_split(share, parts)]


def in_batches(count: int, size: int) -> Iterator[Indices]:
    """0, 1, … count - 1, `size` at a time."""
    return (np.arange(first, min(first + size, count)) for first in range(0, count, size))
