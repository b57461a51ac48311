"""The choice of the next token, the same on either side of the wire and as transformers' `generate` makes it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen."""

    temperature: float = 0.0
    """0 takes the most likely token."""
    top_k: int = 0
    """Tokens that may be drawn; 0: all."""
    seed: int = 0
    eos: tuple[int, ...] = ()
    """Tokens that end a row."""
    pad: int = -1
    """The token of rows that have ended; -1: the first of `eos`."""

    @property
    def padding(self) -> int:
        """The token of rows that have ended."""
        return self.pad if self.pad >= 0 or not self.eos else self.eos[0]


@dataclass
class Sampler:
    """Draws the tokens of a batch, step by step, from a generator of its own."""

    sampling: Sampling
    rows: int
    device: torch.device
    draw: torch.Generator = field(init=False)
    is_open: Tensor = field(init=False)
    """(rows,): rows without a token that ends them."""

    def __post_init__(self) -> None:
        self.draw = torch.Generator(self.device).manual_seed(self.sampling.seed)
        self.is_open = torch.ones(self.rows, dtype=torch.bool, device=self.device)
        self._eos = torch.tensor(self.sampling.eos, device=self.device)

    def choose(self, logits: Tensor) -> Tensor:
        """(rows, vocabulary) -> (rows,), int64; padding where a row has ended.

        Divides by the temperature, keeps the k largest and all that equal the smallest of them, then draws once.
        """
        scores, sampling = logits.float(), self.sampling
        if sampling.temperature == 0:
            tokens = scores.argmax(-1)
        else:
            scores = scores / sampling.temperature
            if 0 < sampling.top_k < scores.shape[-1]:
                least = scores.topk(sampling.top_k).values[:, -1:]
                scores = scores.masked_fill(scores < least, -torch.inf)
            tokens = torch.multinomial(scores.softmax(-1), 1, generator=self.draw)[:, 0]
        return self.accept(tokens)

    def accept(self, tokens: Tensor) -> Tensor:
        """The tokens, with padding in rows that had ended; notes which rows these tokens end."""
        if not self.sampling.eos:
            return tokens
        tokens = torch.where(self.is_open, tokens, self.sampling.padding)
        self.is_open &= ~torch.isin(tokens, self._eos)
        return tokens

    @property
    def has_ended(self) -> bool:
        """Whether every row has ended."""
        return bool(self.sampling.eos) and not bool(self.is_open.any())


def sampling_of(values: Sequence[float], eos: Sequence[int]) -> Sampling:
    """Temperature, top-k, seed and padding as the wire has them."""
    temperature, top_k, seed, pad = values
    return Sampling(temperature=temperature, top_k=int(top_k), seed=int(seed), eos=tuple(eos), pad=int(pad))
