"""Weights of a Llama-shaped decoder, laid out for fast products: fused, and in the order each product reads them."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.models.huge_pages import on_huge_pages
from plumbline.throughput.models.llama_config import not_llama, rope_theta
from plumbline.throughput.models.weights import read_config

CACHED_BYTES = 2**24
"""The weights of a larger model do not stay in a cache from one step to the next: they are read from memory."""
LARGE_BYTES = {"cached": 2**20, "streamed": 2**16}
"""From this size on, reading a weight costs more than calling the kernel."""
PARTS = 16
"""Largest number of equal parts that a large weight's outputs are split into, for threads to share."""
ROWS = 16
"""A part has at least as many outputs, and ranks of streamed weights are padded to a multiple: a prime has no parts."""

Block = tuple[slice | None, Tensor, slice]
"""Columns of x V, or None for all of x; weights as laid out by `_Source.laid_out`; columns of the output."""


@dataclass(frozen=True)
class Product:
    """One or several linear layers that read the same input: x W, or (x V) U with V fused and U in blocks."""

    width: int
    """Width of the output."""
    first: Tensor | None
    """The fused V, with the outputs of all ranks side by side; None without low rank."""
    ranks: int
    """Sum of the ranks."""
    blocks: list[Block]
    bias: Tensor | None

    def bound(self, x: Tensor, y: Tensor, *, add: bool = False) -> list[Callable[[], Tensor]]:
        """Calls that set y (rows, width) to the product of x (rows, in), or with `add` add it to y."""
        calls: list[Callable[[], Tensor]] = []
        if self.first is not None:
            inner = x.new_empty(x.shape[0], self.ranks)
            calls.append(_product(x, self.first, inner, add=False))
        for columns, weight, place in self.blocks:
            calls.append(_product(x if columns is None else inner[:, columns], weight, y[:, place], add=add))
        if self.bias is not None:
            calls.append(_addition(y, self.bias))
        return calls

    def weights(self) -> list[Tensor]:
        """Every tensor that the product reads."""
        optional = [tensor for tensor in (self.first, self.bias) if tensor is not None]
        return optional + [weight for _, weight, _ in self.blocks]


def _product(x: Tensor, weight: Tensor, y: Tensor, *, add: bool) -> Callable[[], Tensor]:
    """A call that sets y (rows, out) to x (rows, in) · weight (in, out) or (parts, out / parts, in), or adds it."""
    if weight.dim() == 3:
        spread, by_part = x.T.expand(len(weight), *x.T.shape), y.T.unflatten(0, weight.shape[:2])
        if add:
            return lambda: torch.baddbmm(by_part, weight, spread, out=by_part)
        return lambda: torch.bmm(weight, spread, out=by_part)
    if add:
        return lambda: torch.addmm(y, x, weight, out=y)
    return lambda: torch.mm(x, weight, out=y)


def _addition(y: Tensor, bias: Tensor) -> Callable[[], Tensor]:
    return lambda: y.add_(bias)


@dataclass(frozen=True)
class Layer:
    """A decoder block."""

    attention_norm: Tensor
    qkv: Product
    """Queries, keys and values side by side; in queries and keys a head's rotary pairs are adjacent."""
    attention_out: Product
    mlp_norm: Tensor
    gate_up: Product
    down: Product


@dataclass(frozen=True)
class Llama:
    """The model. Norm weights are scaled by √width, since the norm divides by the vector's length."""

    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    epsilon: float
    """Added to the mean square in a norm."""
    theta: float
    embedding: Tensor
    layers: list[Layer]
    norm: Tensor
    head: Product

    def weights(self) -> list[Tensor]:
        """Every weight that a decode step reads in full."""
        found = [self.norm, *self.head.weights()]
        for layer in self.layers:
            products = (layer.qkv, layer.attention_out, layer.gate_up, layer.down)
            found += [layer.attention_norm, layer.mlp_norm]
            found += [weight for product in products for weight in product.weights()]
        return found


def read_llama(folder: Path, tensors: dict[str, Tensor], *, one_row: bool) -> Llama:
    """The model in `folder`, built from its `tensors`, which are consumed. `one_row`: for products of single rows.

    Raises OutcomeError with outcome `unavailable` for another architecture, UserError when weights are missing or
    differ in shape from config.json.
    """
    config = read_config(folder)
    theta = _supported(config)
    heads, width, hidden = config["num_attention_heads"], config["hidden_size"], config["intermediate_size"]
    kv_heads = config.get("num_key_value_heads") or heads
    size = config.get("head_dim") or width // heads
    source = _Source(folder, tensors, one_row)
    counts = {"q": heads, "k": kv_heads, "v": kv_heads}
    pairs = torch.arange(size).view(2, -1).T.reshape(-1)

    def norm(name: str) -> Tensor:
        return source.take(f"{name}.weight", (width,)).float() * math.sqrt(width)

    def layer(prefix: str) -> Layer:
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        order = {f"{attention}.{n}_proj": (pairs + size * torch.arange(counts[n])[:, None]).reshape(-1) for n in "qk"}
        return Layer(
            attention_norm=norm(f"{prefix}.input_layernorm"),
            qkv=source.product({f"{attention}.{n}_proj": c * size for n, c in counts.items()}, width, order),
            attention_out=source.product({f"{attention}.o_proj": width}, heads * size),
            mlp_norm=norm(f"{prefix}.post_attention_layernorm"),
            gate_up=source.product({f"{mlp}.gate_proj": hidden, f"{mlp}.up_proj": hidden}, width),
            down=source.product({f"{mlp}.down_proj": width}, hidden),
        )

    layers = [layer(f"model.layers.{number}") for number in range(config["num_hidden_layers"])]
    last = norm("model.norm")
    embedding = source.take("model.embed_tokens.weight", (config["vocab_size"], width))
    own = tensors.get("lm_head.weight")
    if own is None or (config.get("tie_word_embeddings", False) and torch.equal(own, embedding)):
        shared = source.laid_out(embedding)
        head = Product(len(embedding), None, 0, [(None, shared, slice(None))], None)
        embedding = shared.T if shared.dim() == 2 else shared.flatten(0, 1)  # the same memory
    else:
        head = source.product({"lm_head": config["vocab_size"]}, width)
    return Llama(heads, kv_heads, size, hidden, config.get("rms_norm_eps", 1e-6), theta, embedding, layers, last, head)


def _supported(config: dict[str, Any]) -> float:
    """θ of the rotary embeddings. Raises OutcomeError for an architecture that computes differently."""
    if reason := not_llama(config):
        raise OutcomeError(Outcome.UNAVAILABLE, f"engine lean only supports {reason}")
    return rope_theta(config)


class _Part(NamedTuple):
    """A linear layer as stored: `second`, preceded by `first` if it is low-rank."""

    first: Tensor | None
    second: Tensor
    bias: Tensor | None


class _Source:
    """The stored tensors, taken out one by one so that two copies never coexist for long."""

    def __init__(self, folder: Path, tensors: dict[str, Tensor], one_row: bool) -> None:
        self._folder, self._tensors, self._one_row = folder, tensors, one_row
        self._streamed = one_row and sum(tensor.nbytes for tensor in tensors.values()) > CACHED_BYTES

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self._tensors:
            raise UserError(f"{self._folder}: lacks {name}, which its config.json asks for; save the model again")
        tensor = self._tensors.pop(name)
        if tensor.shape != shape:
            raise UserError(f"{self._folder}: {name} has shape {tuple(tensor.shape)}, config.json asks for {shape}")
        return tensor

    def laid_out(self, weight: Tensor) -> Tensor:
        """A weight (out, in) as (in, out); for single rows on the CPU, in the layout that is read fastest there.

        Small or indivisible weights: contiguous as (in, out). Large ones: unchanged, in equal parts
        (parts, out / parts, in), because torch splits a batch of products between threads, but not a product of one
        row.
        """
        if not self._one_row or weight.device.type != "cpu" or weight.dtype != torch.float32:
            return on_huge_pages(weight).T
        most = min(PARTS, max(1, len(weight) // ROWS))
        parts = max(parts for parts in range(1, most + 1) if len(weight) % parts == 0)
        if weight.nbytes < LARGE_BYTES["streamed" if self._streamed else "cached"] or parts == 1:
            return on_huge_pages(weight.T.contiguous())
        return on_huge_pages(weight.contiguous()).unflatten(0, (parts, -1))

    def product(self, names: dict[str, int], width: int, order: dict[str, Tensor] | None = None) -> Product:
        """Fuses linear layers that read the same `width` inputs. names: name -> number of outputs.

        `order` permutes a layer's outputs.
        """
        parts = [self._part(name, width, outputs, (order or {}).get(name)) for name, outputs in names.items()]
        ends = list(itertools.accumulate(part.second.shape[0] for part in parts))
        places = [slice(end - part.second.shape[0], end) for part, end in zip(parts, ends, strict=True)]
        bias = None
        if any(part.bias is not None for part in parts):
            bias = torch.cat(
                [part.second.new_zeros(len(part.second)) if part.bias is None else part.bias for part in parts]
            )
        firsts = [part.first for part in parts if part.first is not None]
        if not firsts:
            dense = torch.cat([part.second for part in parts]) if len(parts) > 1 else parts[0].second
            return Product(ends[-1], None, 0, [(None, self.laid_out(dense), slice(None))], bias)
        first = self.laid_out(torch.cat(firsts) if len(firsts) > 1 else firsts[0])
        blocks: list[Block] = []
        at = 0
        for part, place in zip(parts, places, strict=True):
            columns = None
            if part.first is not None:
                columns = slice(at, at := at + len(part.first))
            blocks.append((columns, self.laid_out(part.second), place))
        return Product(ends[-1], first, at, blocks, bias)

    def _part(self, name: str, width: int, outputs: int, order: Tensor | None) -> "_Part":
        """The layer `name` as stored, dense or low-rank, with its outputs in `order`."""
        if f"{name}.0.weight" in self._tensors:
            rank = len(self._tensors[f"{name}.0.weight"])
            first, second = self.take(f"{name}.0.weight", (rank, width)), self.take(f"{name}.1.weight", (outputs, rank))
            bias = self._tensors.pop(f"{name}.1.bias", None)
        else:
            first, second = None, self.take(f"{name}.weight", (outputs, width))
            bias = self._tensors.pop(f"{name}.bias", None)
        if order is not None:
            second, bias = second[order], None if bias is None else bias[order]
        if first is not None and self._streamed:
            missing = -len(first) % ROWS
            first, second = F.pad(first, (0, 0, 0, missing)), F.pad(second, (0, missing))  # zeros add nothing
        return _Part(first, second, bias)
