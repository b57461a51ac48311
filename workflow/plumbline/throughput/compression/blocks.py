"""The linear layers inside a model's decoder blocks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.models.manifest import CompressedLayer
from plumbline.throughput.models.unmatched import listed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Block = dict[str, nn.Module]
"""The linear layers of a decoder block by their names in the model."""


def blocks_of(model: "PreTrainedModel", place: str) -> list[Block]:
    """The linear layers of each decoder block, in order; embedding and head belong to no block.

    Raises OutcomeError, unavailable and naming `place`, for a model without decoder blocks or linear layers in them.
    """
    blocks = [
        {f"{name}.{key}": part for key, part in block.named_modules() if _is_linear(part)}
        for name, block in _decoder_blocks(model, place)
    ]
    found = [block for block in blocks if block]
    if not found:
        raise OutcomeError(Outcome.UNAVAILABLE, f"{place}: its decoder blocks have no linear layers to compress")
    return found


def block_matrices(model: "PreTrainedModel", place: str) -> dict[str, int]:
    """Name -> number of parameters, of each parameter of the decoder blocks with two dimensions or more.

    Of three dimensions are the experts of a layer, one matrix each.
    """
    return {
        f"{name}.{key}": parameter.numel()
        for name, block in _decoder_blocks(model, place)
        for key, parameter in block.named_parameters()
        if parameter.dim() > 1
    }


def reached_share(matrices: dict[str, int], layers: Sequence[CompressedLayer]) -> float:
    """Share of the parameters in the blocks' matrices that `layers`, factored, left: `matrices` are those there now."""
    kept = sum(matrices.values())
    saved = sum(layer.rows * layer.columns - layer.rank * (layer.rows + layer.columns) for layer in layers)
    return kept / (kept + saved)


def left_whole(matrices: dict[str, int], layers: Sequence[CompressedLayer]) -> list[str]:
    """What the findings say about those of `matrices` that are none of `layers`, if there are any."""
    factors = {f"{layer.name}.{part}.weight" for layer in layers for part in "01"}
    left = {name: count for name, count in matrices.items() if name not in factors}
    if not left:
        return []
    whole = sum(left.values()) + sum(layer.rows * layer.columns for layer in layers)
    share = sum(left.values()) / whole
    return [
        f"SVD left {share:.1%} of the blocks' parameters as they are, which no plain linear layer has: {listed(left)}"
    ]


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Name -> rows and columns of every linear layer."""
    linears = ((name, matrix_of(part)) for name, part in model.named_modules() if _is_linear(part))
    return {name: (matrix.shape[0], matrix.shape[1]) for name, matrix in linears}


def matrix_of(linear: nn.Module) -> Tensor:
    """The weight W (rows, columns) of a linear layer, such that it computes x Wᵀ + bias."""
    weight = linear.get_parameter("weight")
    return weight if isinstance(linear, nn.Linear) else weight.mT


def _decoder_blocks(model: "PreTrainedModel", place: str) -> list[tuple[str, nn.Module]]:
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return [(f"{name}.{number}", block) for number, block in enumerate(module)]
    raise OutcomeError(Outcome.UNAVAILABLE, f"{place}: has no decoder blocks, so it cannot be compressed")


def _is_linear(module: nn.Module) -> bool:
    """Whether a module only multiplies: some subclasses of Linear are routers, which choose experts as well."""
    if not isinstance(module, nn.Linear):
        return type(module).__name__ == "Conv1D"  # its weight is transposed
    if type(module).forward is nn.Linear.forward:
        return True
    x = module.weight.new_ones(1, module.in_features)
    found = module(x)
    if not isinstance(found, Tensor) or found.shape != (1, module.out_features):
        return False
    return found.is_meta or torch.allclose(found, F.linear(x, module.weight, module.bias), rtol=1e-3, atol=1e-5)
