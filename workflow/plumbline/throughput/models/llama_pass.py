"""A forward pass of a Llama-shaped decoder, through buffers that are allocated once."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.throughput.models.llama import Llama


class Cache:
    """Keys and values of `positions` tokens of each of `batch` rows, and the rotary angles."""

    def __init__(self, model: Llama, batch: int, positions: int) -> None:
        embedding, size = model.embedding, model.head_size
        shape = (len(model.layers), 2, batch, model.kv_heads, positions, size)
        self._content = torch.zeros(shape, dtype=embedding.dtype, device=embedding.device)
        self._by_row = self._content.flatten(0, 1)
        self._by_head = self._by_row.flatten(1, 2)
        frequencies = 1.0 / model.theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
        angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
        self.turns = torch.polar(torch.ones_like(angles), angles)[:, None].to(embedding.device)
        """(positions, 1, size / 2), complex: a rotation is a product (Su et al. 2021, "RoFormer", section 3.4.2)."""

    def places(self, start: int, length: int) -> tuple[Tensor, ...]:
        """Where each layer's keys and values go: (2, batch, kv heads, length, head size)."""
        return self._content.narrow(4, start, length).unbind(0)

    def by_row(self, stop: int) -> tuple[Tensor, ...]:
        """Keys and values of each layer in turn, up to `stop`: (batch, kv heads, stop, head size)."""
        return self._by_row.narrow(3, 0, stop).unbind(0)

    def by_head(self, stop: int) -> tuple[Tensor, ...]:
        """The same as (batch · kv heads, stop, head size)."""
        return self._by_head.narrow(2, 0, stop).unbind(0)


class Pass:
    """A pass over `length` tokens of each of `batch` rows; `run` sets `logits` (batch, vocabulary).

    Attention over a prompt uses torch's fused kernel; a single token's uses two products if `eager`.
    """

    def __init__(self, model: Llama, cache: Cache, batch: int, length: int, *, eager: bool) -> None:
        self._cache, self._length, self._embedding = cache, length, model.embedding
        self._by_head = eager and length == 1
        self._causal, self._grouped = length > 1, length > 1 and model.heads != model.kv_heads
        rows, width, size = batch * length, model.embedding.shape[1], model.head_size
        queries = model.heads * size
        empty = model.embedding.new_empty
        self._x, normed, mixed = empty(rows, width), empty(rows, width), empty(rows, queries)
        qkv, gate_up = empty(rows, queries + 2 * model.kv_heads * size), empty(rows, 2 * model.hidden)
        self.logits = empty(batch, model.head.width)

        # Rotary embeddings are applied in float32; in place if the projections already are.
        self._qkv, self._wide = qkv, qkv.float()
        pairs = self._wide.view(batch, length, -1, size // 2, 2)[:, :, : model.heads + model.kv_heads]
        self._pairs = torch.view_as_complex(pairs)
        self._unscaled, self._scale = self._wide[:, :queries], 1 / math.sqrt(size)
        self._scaled = empty(rows, queries)
        self._keys_values = self._wide[:, queries:].view(batch, length, 2, model.kv_heads, size).permute(2, 0, 3, 1, 4)
        if length > 1:
            self._q = self._scaled.view(batch, length, model.heads, size).transpose(1, 2)
            self._mixed = mixed.view(batch, length, model.heads, size).transpose(1, 2)
        else:  # the queries that share a key take the place of positions
            shape = (batch * model.kv_heads,) if self._by_head else (batch, model.kv_heads)
            self._q, self._mixed = self._scaled.view(*shape, -1, size), mixed.view(*shape, -1, size)

        norm = _Norm(rows, width, model.epsilon, self._x.device)
        gate, up = gate_up.split(model.hidden, 1)
        self._layers = [
            (
                [norm.bound(self._x, layer.attention_norm, normed), *layer.qkv.bound(normed, qkv)],
                [
                    *layer.attention_out.bound(mixed, self._x, add=True),
                    norm.bound(self._x, layer.mlp_norm, normed),
                    *layer.gate_up.bound(normed, gate_up),
                    _gating(gate, up),
                    *layer.down.bound(gate, self._x, add=True),
                ],
            )
            for layer in model.layers
        ]
        last, normed_last = self._x.view(batch, length, width)[:, -1], normed[:batch]
        self._head = [norm.bound(last, model.norm, normed_last), *model.head.bound(normed_last, self.logits)]

    def run(self, tokens: Tensor, start: int) -> None:
        """Processes `tokens` (batch · length) at positions from `start` on, after what is in the cache."""
        stop = start + self._length
        turns = self._cache.turns[start:stop]
        known = self._cache.by_head(stop) if self._by_head else self._cache.by_row(stop)
        places = self._cache.places(start, self._length)
        torch.index_select(self._embedding, 0, tokens, out=self._x)
        for (before, after), place, keys, values in zip(self._layers, places, known[::2], known[1::2], strict=True):
            for call in before:
                call()
            if self._wide is not self._qkv:
                self._wide.copy_(self._qkv)
            self._pairs.mul_(turns)
            place.copy_(self._keys_values)
            torch.mul(self._unscaled, self._scale, out=self._scaled)
            self._attend(keys, values)
            for call in after:
                call()
        for call in self._head:
            call()

    def _attend(self, keys: Tensor, values: Tensor) -> None:
        if self._by_head:
            weights = torch.bmm(self._q, keys.transpose(1, 2)).softmax(-1)
            torch.bmm(weights, values, out=self._mixed)
        else:
            found = F.scaled_dot_product_attention(
                self._q, keys, values, is_causal=self._causal, scale=1.0, enable_gqa=self._grouped
            )
            self._mixed.copy_(found)


class _Norm:
    """x / √(|x|² + width ε) · weight: RMSNorm (Zhang and Sennrich 2019) with weights scaled by √width."""

    def __init__(self, rows: int, width: int, epsilon: float, device: torch.device) -> None:
        self._lengths = torch.empty(rows, 1, device=device)
        self._floor = torch.tensor(math.sqrt(width * epsilon), device=device)

    def bound(self, x: Tensor, weight: Tensor, normed: Tensor) -> Callable[[], Tensor]:
        lengths, floor = self._lengths[: len(x)], self._floor
        vector_norm, hypot, div = torch.linalg.vector_norm, torch.hypot, torch.div

        def call() -> Tensor:
            vector_norm(x, dim=1, keepdim=True, dtype=torch.float32, out=lengths)
            hypot(lengths, floor, out=lengths)
            return div(x, lengths, out=normed).mul_(weight)

        return call


def _gating(gate: Tensor, up: Tensor) -> Callable[[], Tensor]:
    return lambda: F.silu(gate, inplace=True).mul_(up)
