"""Prompts: row i depends only on the seed, i and the length, not on the model, engine or batch."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from plumbline.throughput.models.weights import opened


def prompts(text_file: Path, vocabulary: int, batch: int, prompt: int, seed: int) -> Tensor:
    """`batch` prompts of `prompt` tokens, int64 (batch, prompt).

    Pieces of the evaluation text, which wraps around at its end; random tokens where there is no text, or where the
    text has ids outside the model's `vocabulary`.
    """
    with opened(text_file) as file:
        text = file.get_tensor("evaluation").flatten() if "evaluation" in file.keys() else None  # noqa: SIM118
    rows = [_number(seed, row, prompt) for row in range(batch)]
    if text is None or int(text.max()) >= vocabulary:
        draws = (torch.Generator().manual_seed(row) for row in rows)
        return torch.stack([torch.randint(vocabulary, (prompt,), generator=draw) for draw in draws])
    starts = torch.tensor([row % len(text) for row in rows])
    return text[(starts[:, None] + torch.arange(prompt)) % len(text)]


def _number(seed: int, row: int, prompt: int) -> int:
    """63 pseudorandom bits for a row."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row} {prompt}".encode()).digest()[:8], "big") >> 1
