"""Moments of linear layers on calibration text, which whitening needs."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plumbline.throughput.compression.blocks import Block, matrix_of
from plumbline.throughput.compression.svd import Moments
from plumbline.throughput.models.perplexity import batch_windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MOMENTS_BYTES = 2**32
"""Memory that moments may take at a time, unless a single block needs more."""


class _Sums:
    """Σ x xᵀ and Σ g gᵀ of a linear layer, in float64 on its device, collected by hooks."""

    def __init__(self, linear: nn.Module) -> None:
        rows, columns = matrix_of(linear).shape
        device = matrix_of(linear).device
        self.inputs = torch.zeros(columns, columns, dtype=torch.float64, device=device)
        self.gradients = torch.zeros(rows, rows, dtype=torch.float64, device=device)
        self.tokens = 0
        self._handles = [
            linear.register_forward_pre_hook(self._forward),
            linear.register_full_backward_hook(self._backward),
        ]

    def _forward(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach().flatten(0, -2).double()
        self.inputs.addmm_(x.mT, x)
        self.tokens += len(x)

    def _backward(self, _: nn.Module, __: Any, by_output: Any) -> None:
        g = by_output[0].flatten(0, -2).double()
        self.gradients.addmm_(g.mT, g)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def together(blocks: Sequence[Block]) -> Iterator[Block]:
    """The linear layers of as many blocks at a time as MOMENTS_BYTES allows; each group takes one pass."""
    group: Block = {}
    size = 0
    for block in blocks:
        needed = sum(
            8 * (rows**2 + columns**2) for rows, columns in (matrix_of(linear).shape for linear in block.values())
        )
        if group and size + needed > MOMENTS_BYTES:
            yield group
            group, size = {}, 0
        group = group | block
        size += needed
    yield group


@torch.enable_grad()
def moments(model: "PreTrainedModel", block: Block, windows: Tensor) -> dict[str, Moments]:
    """Moments of each linear layer of `block`, over the tokens of `windows` (count, window).

    The gradients are of the window's cross-entropy, summed over its tokens.
    """
    found = {name: _Sums(linear) for name, linear in block.items()}
    embedded = model.get_input_embeddings().register_forward_hook(_start)
    try:
        for batch in windows.split(batch_windows(model, windows.shape[1])):
            tokens = batch.to(model.device)
            logits = model(tokens, use_cache=False).logits[:, :-1].float()
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").backward()
    finally:
        embedded.remove()
        for sums in found.values():
            sums.remove()
    return {name: Moments(sums.inputs, sums.gradients, sums.tokens) for name, sums in found.items()}


def _start(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
    """Makes gradients flow back to here, although no weight requires one."""
    return embedded.detach().requires_grad_()
