"""Low-rank layers in the layouts of the tools that write them: found by their tensors' names, read as ours."""

from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.throughput.models.manifest import CompressedLayer

SCALING_EPSILON = 1e-5
"""GSVD adds it to a channel's variance."""


class Pair(NamedTuple):
    """Names, without `.weight`, of the two linear layers in place of one: x ↦ second(first(x))."""

    first: str
    second: str
    scalings: tuple[str, str] | None = None
    """Names of the scalings of the inputs of both (GSVD); None in other layouts."""


def layouts(layer: str) -> Iterator[Pair]:
    """Where tools keep the two factors of `layer`: this project, GSVD, ASVD, SVD-LLM."""
    yield Pair(f"{layer}.0", f"{layer}.1")
    yield Pair(f"{layer}.vt_linear", f"{layer}.u_linear", (f"{layer}.normalization1", f"{layer}.normalization2"))
    yield Pair(f"{layer}.BLinear", f"{layer}.ALinear")
    stem = layer.removesuffix("_proj")  # q_proj becomes q_v_proj and q_u_proj; fc1 becomes fc1_v_proj and fc1_u_proj
    yield Pair(f"{stem}_v_proj", f"{stem}_u_proj")


def pair_of(layer: str, names: Set[str]) -> Pair | None:
    """The factors of `layer` among the tensors `names`; None where it is stored whole or not at all."""
    if f"{layer}.weight" in names:
        return None
    found = (pair for pair in layouts(layer) if {f"{pair.first}.weight", f"{pair.second}.weight"} <= names)
    return next(found, None)


def factored_layers(
    linears: Mapping[str, tuple[int, int]], shapes: Mapping[str, tuple[int, ...]]
) -> list[CompressedLayer]:
    """Those of the model's `linears` (name -> rows, columns) that a file with tensors of `shapes` holds as two factors.

    How well they approximate the layer that they replace is not known.
    """
    found = []
    for name, (rows, columns) in linears.items():
        if pair := pair_of(name, shapes.keys()):
            found.append(CompressedLayer(name=name, rows=rows, columns=columns, rank=shapes[f"{pair.first}.weight"][0]))
    return found


def as_ours(tensors: dict[str, Tensor], layer: str) -> None:
    """Renames the tensors of one low-rank `layer` to `{layer}.0.weight`, `{layer}.1.weight` and `{layer}.1.bias`.

    GSVD's scalings are multiplied into the factors, in float32 and then rounded to their dtype; a bias between the
    factors is moved behind the second.
    """
    pair = pair_of(layer, tensors.keys())
    if pair is None:
        return
    first, second = (tensors.pop(f"{name}.weight") for name in (pair.first, pair.second))
    biases = [tensors.pop(f"{name}.bias", None) for name in (pair.first, pair.second, layer)]
    between, *behind = biases
    for place, name in enumerate(pair.scalings or ()):
        if f"{name}.gamma" in tensors:
            variance = tensors.pop(f"{name}.running_var").float()
            scale = tensors.pop(f"{name}.gamma").float() / (variance + SCALING_EPSILON).sqrt()
            if place == 0:
                first = (first.float() * scale).to(first.dtype)
            else:
                second = (second.float() * scale).to(second.dtype)
    parts = [bias for bias in behind if bias is not None]
    if between is not None:
        parts.append((second.float() @ between.float()).to(second.dtype))
    tensors[f"{layer}.0.weight"], tensors[f"{layer}.1.weight"] = first, second
    if parts:
        tensors[f"{layer}.1.bias"] = torch.stack(parts).sum(0)
