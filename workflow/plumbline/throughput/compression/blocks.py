"""The linear layers inside a model's decoder blocks."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from plumbline.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Block = dict[str, nn.Module]
"""The linear layers of a decoder block by their names in the model."""


def blocks_of(model: "PreTrainedModel", place: str) -> list[Block]:
    """The linear layers of each decoder block, in order; embedding and head belong to no block.

    Raises UserError, naming `place`, for a model without decoder blocks or without linear layers in them.
    """
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            blocks = [
                {f"{name}.{number}.{key}": part for key, part in block.named_modules() if _is_linear(part)}
                for number, block in enumerate(module)
            ]
            if all(blocks):
                return blocks
    raise UserError(f"{place}: has no decoder blocks with linear layers, so it cannot be compressed; use another model")


def matrix_of(linear: nn.Module) -> Tensor:
    """The weight W (rows, columns) of a linear layer, such that it computes x Wᵀ + bias."""
    weight = linear.get_parameter("weight")
    return weight if isinstance(linear, nn.Linear) else weight.mT


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # its weight is transposed
