"""AdamW (Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization") with torch's kernels.

Constructing torch.optim.AdamW imports torch.compile, which takes 1 to 2 s that a trial of a few seconds does not
need; calling its functional form does not.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

EPSILON = 1e-8


class AdamW:
    """AdamW; with `spare_vectors` only matrices decay, as is usual for transformers. Without decay it is Adam."""

    def __init__(
        self,
        weights: Iterable[Tensor],
        *,
        beta1: float,
        beta2: float,
        weight_decay: float,
        fused: bool,
        spare_vectors: bool = False,
    ) -> None:
        self.weights = list(weights)
        spared = [number for number, weight in enumerate(self.weights) if spare_vectors and weight.dim() < 2]
        decayed = [number for number in range(len(self.weights)) if number not in spared]
        self.groups = [(numbers, decay) for numbers, decay in ((decayed, weight_decay), (spared, 0.0)) if numbers]
        self.betas, self.fused = (beta1, beta2), fused
        self.first = [torch.zeros_like(weight) for weight in self.weights]
        self.second = [torch.zeros_like(weight) for weight in self.weights]
        # torch wants one step count per weight; the fused kernel wants it on the weight's device
        self.steps = [torch.zeros((), device=weight.device if fused else "cpu") for weight in self.weights]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the weights' gradients, all of which must exist."""
        for numbers, decay in self.groups:
            adamw(
                [self.weights[number] for number in numbers],
                [self._gradient(number) for number in numbers],
                [self.first[number] for number in numbers],
                [self.second[number] for number in numbers],
                [],
                [self.steps[number] for number in numbers],
                foreach=not self.fused and self.weights[0].is_cuda,
                fused=self.fused,
                amsgrad=False,
                maximize=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=rate,
                weight_decay=decay,
                eps=EPSILON,
            )

    def _gradient(self, number: int) -> Tensor:
        gradient = self.weights[number].grad
        assert gradient is not None, "call backward() before step()"
        return gradient

    def clear(self) -> None:
        """Drops the gradients, so the next backward pass creates new ones instead of adding to zeros."""
        for weight in self.weights:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Moments and step counts, in the order of the weights."""
        return {"first": self.first, "second": self.second, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for name in ("first", "second", "steps"):
            for tensor, saved in zip(getattr(self, name), state[name], strict=True):
                tensor.copy_(saved)
