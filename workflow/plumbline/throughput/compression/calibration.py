"""Moments of linear layers on calibration text, which whitening needs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plumbline.core.errors import one_line
from plumbline.core.run.device import memory_errors
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.compression.blocks import Block, matrix_of
from plumbline.throughput.compression.svd import Moments
from plumbline.throughput.models.perplexity import batch_windows
from plumbline.throughput.models.unmatched import listed

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
        self._handle = linear.register_forward_hook(self._forward, with_kwargs=True)

    def _forward(self, _: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        x = (inputs or tuple(named.values()))[0].detach().flatten(0, -2).double()
        self.inputs.addmm_(x.mT, x)
        self.tokens += len(x)
        if output.requires_grad:  # it does not where the model cuts the gradient, as behind some routers
            output.register_hook(self._backward)  # of the tensor: a module's backward hook forbids in-place operations

    def _backward(self, gradient: Tensor) -> None:
        g = gradient.flatten(0, -2).double()
        self.gradients.addmm_(g.mT, g)

    def remove(self) -> None:
        self._handle.remove()


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

    The gradients are of the window's cross-entropy, summed over its tokens. Raises OutcomeError, unavailable, for a
    model that torch cannot differentiate.
    """
    found = {name: _Sums(linear) for name, linear in block.items()}
    embedded = model.get_input_embeddings().register_forward_hook(_start)
    try:
        for batch in windows.split(batch_windows(model, windows.shape[1])):
            tokens = batch.to(model.device)
            with memory_errors():
                logits = model(tokens, use_cache=False).logits[:, :-1].float()
                F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").backward()
    except RuntimeError as error:
        message = f"its gradients cannot be computed, which whitening needs ({one_line(error)}); use methods: [plain]"
        raise OutcomeError(Outcome.UNAVAILABLE, message) from error
    finally:
        embedded.remove()
        for sums in found.values():
            sums.remove()
    return {name: Moments(sums.inputs, sums.gradients, sums.tokens) for name, sums in found.items()}


def unweighted(moments: Mapping[str, Moments]) -> list[str]:
    """What the findings say about layers that calibration text did not reach, or no gradient."""
    unseen = [name for name, found in moments.items() if not found.tokens]
    cut = [name for name, found in moments.items() if found.tokens and not bool(found.gradients.any())]
    kinds = {"no calibration token reached": unseen, "no gradient reaches": cut}
    return [
        f"{what} {listed(names)}, so their errors are weighted equally there" for what, names in kinds.items() if names
    ]


def _start(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
    """Makes gradients flow back to here, although no weight requires one.

    A copy, since some models scale it in place.
    """
    return embedded.detach().requires_grad_().clone()
