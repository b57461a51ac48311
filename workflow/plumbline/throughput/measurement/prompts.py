"""Prompts: row i depends on the seed, i and the length only, whatever model, engine or batch it is for."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from plumbline.throughput.models.weights import opened


def prompts(text_file: Path, vocabulary: int, batch: int, prompt: int, seed: int) -> Tensor:
    """`batch` prompts of `prompt` tokens, int64 (batch, prompt).

    Pieces of the evaluation text, going on at its start behind its end; tokens drawn at random where there is no text,
    or where the model, having fewer than `vocabulary` ids, does not know them all.
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
    """63 bits that belong to a row."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row} {prompt}".encode()).digest()[:8], "big") >> 1
