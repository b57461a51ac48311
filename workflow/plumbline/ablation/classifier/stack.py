"""A stack of perceptrons of the same shape: each layer is one batched matrix product for all of them.

Activations are (A, units, rows). This takes one extra transposition, but BatchNorm then sees (1, A·units, rows), and
torch's kernel normalises all networks in one call. Forward and backward are written out: at these sizes autograd's
bookkeeping would cost more than the arithmetic.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.optim.adam import adam

from plumbline.ablation.classifier.draws import initial_weights
from plumbline.ablation.settings import ClassifierSettings

ALIGNMENT = 16  # elements; tensors start on a cache line, so that their sums do not depend on the position in memory
BATCH_NORM_MOMENTUM, BATCH_NORM_EPSILON = 0.1, 1e-5  # torch.nn.BatchNorm1d's
BETA_1, BETA_2, ADAM_EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The shape of each network in a stack."""

    width: int
    hidden: int
    layers: int
    classes: int


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Views of a flat (A, P) buffer: weights (A, out, in) by layer, gain and shift (A, layers, hidden), bias (A, C)."""

    weights: list[Tensor]
    gain: Tensor
    shift: Tensor
    bias: Tensor


@lru_cache
def _layout(shape: Shape) -> tuple[list[tuple[int, tuple[int, ...]]], int]:
    """(offset, shape) of each tensor in a network's flat vector, and the vector's length."""
    inputs = [shape.width] + [shape.hidden] * shape.layers
    outputs = [shape.hidden] * shape.layers + [shape.classes]
    norms = (shape.layers, shape.hidden)
    places, offset = [], 0
    for size in [*zip(outputs, inputs, strict=True), norms, norms, (shape.classes,)]:
        places.append((offset, size))
        offset += -(-torch.Size(size).numel() // ALIGNMENT) * ALIGNMENT
    return places, offset


def parts(flat: Tensor, shape: Shape) -> Parts:
    """Views of the tensors inside `flat` (A, P)."""
    places, _ = _layout(shape)
    views = [flat[:, at : at + torch.Size(size).numel()].unflatten(1, size) for at, size in places]
    *weights, gain, shift, bias = views
    return Parts(weights=weights, gain=gain, shift=shift, bias=bias)


class Stack:
    """Networks, their gradients and their Adam moments.

    flat: (A, P), the parameters of one network per row; mean, variance: (A, layers, hidden), BatchNorm's running
    statistics. These three decide what the networks predict.
    """

    def __init__(self, shape: Shape, flat: Tensor, mean: Tensor, variance: Tensor) -> None:
        self.shape, self.flat = shape, flat
        self.first_moment, self.second_moment = torch.zeros_like(flat), torch.zeros_like(flat)
        self.steps = torch.zeros(len(flat), device=flat.device)
        # layer first, because the kernel needs each layer's statistics contiguous
        self.mean, self.variance = mean.transpose(0, 1).contiguous(), variance.transpose(0, 1).contiguous()
        self.gradient = torch.zeros_like(flat)
        self._prepare()

    def _prepare(self) -> None:
        rows = (self.flat, self.gradient, self.first_moment, self.second_moment, self.steps)
        self._rows = [list(tensor.unbind()) for tensor in rows]
        self._parts: dict[tuple[int, int], tuple[Parts, Parts]] = {}

    def __len__(self) -> int:
        return len(self.flat)

    def keep(self, networks: Tensor) -> None:
        """Keeps only the networks at these places of the stack."""
        for name in ("flat", "first_moment", "second_moment", "steps"):
            setattr(self, name, getattr(self, name)[networks])
        self.mean, self.variance = self.mean[:, networks], self.variance[:, networks]
        self.gradient = self.gradient[: len(networks)]  # overwritten in each step, so only its size matters
        self._prepare()

    def running(self) -> tuple[Tensor, Tensor]:
        """BatchNorm's running mean and variance, (A, layers, hidden)."""
        return self.mean.transpose(0, 1), self.variance.transpose(0, 1)

    def _parts_of(self, low: int, high: int) -> tuple[Parts, Parts]:
        """The parameters and gradients of the networks low … high − 1."""
        if (low, high) not in self._parts:
            both = parts(self.flat[low:high], self.shape), parts(self.gradient[low:high], self.shape)
            self._parts[low, high] = both
        return self._parts[low, high]

    def gradients(self, low: int, high: int, x: Tensor, y: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Computes in `gradient` that of the mean cross entropy of networks low … high − 1, each on its own batch.

        x (A, b, W), y (A, b), masks (A, layers, hidden, b) or None for no dropout, A = high − low.
        Updates the running statistics. Returns the summed loss and the number of hits, each (A,).
        """
        params, gradient = self._parts_of(low, high)
        inputs, norms = [x.transpose(1, 2)], []
        for layer in range(self.shape.layers):
            linear = torch.bmm(params.weights[layer], inputs[-1])
            channels = linear.view(1, -1, linear.shape[2])
            gain, shift = params.gain[:, layer].reshape(-1), params.shift[:, layer].reshape(-1)
            mean, variance = (s[layer, low:high].view(-1) for s in (self.mean, self.variance))
            out, *saved = torch.native_batch_norm(
                channels, gain, shift, mean, variance, True, BATCH_NORM_MOMENTUM, BATCH_NORM_EPSILON
            )
            norms.append((channels, gain, mean, variance, *saved))
            out = torch.relu_(out.view_as(linear))
            inputs.append(out if masks is None else out.mul_(masks[:, layer]))
        logits = torch.baddbmm(params.bias[:, :, None], params.weights[-1], inputs[-1])
        log_shares = torch.log_softmax(logits, dim=1)
        true = y[:, None]
        loss = -log_shares.gather(1, true).sum(dim=(1, 2))
        hits = (logits.max(dim=1).indices == y).sum(dim=1)
        slope = log_shares.exp_()
        slope.scatter_add_(1, true, slope.new_full((), -1.0).expand(true.shape)).div_(y.shape[1])
        torch.sum(slope, dim=2, out=gradient.bias)
        for layer in range(self.shape.layers, 0, -1):
            torch.bmm(slope, inputs[layer].transpose(1, 2), out=gradient.weights[layer])
            slope = torch.bmm(params.weights[layer].transpose(1, 2), slope)
            if masks is not None:
                slope.mul_(masks[:, layer - 1])
            slope = torch.ops.aten.threshold_backward(slope, inputs[layer], 0)
            channels, gain, *statistics = norms[layer - 1]
            back, gain_slope, shift_slope = torch.ops.aten.native_batch_norm_backward(
                slope.view_as(channels), channels, gain, *statistics, True, BATCH_NORM_EPSILON, [True] * 3
            )
            gradient.gain[:, layer - 1] = gain_slope.view(high - low, -1)
            gradient.shift[:, layer - 1] = shift_slope.view(high - low, -1)
            slope = back.view_as(slope)
        torch.bmm(slope, x, out=gradient.weights[0])
        return loss, hits

    def adam_step(self, networks: list[int], learning_rate: float, weight_decay: float) -> None:
        """One step of torch's fused Adam for the networks at these places, which share a learning rate."""
        flat, gradient, first, second, steps = ([rows[i] for i in networks] for rows in self._rows)
        adam(
            flat,
            gradient,
            first,
            second,
            [],
            steps,
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=BETA_1,
            beta2=BETA_2,
            lr=learning_rate,
            weight_decay=weight_decay,
            eps=ADAM_EPSILON,
            maximize=False,
        )

    def predict(self, x: Tensor) -> Tensor:
        """The classes (A, b) that the networks predict for their rows x (A, b, W), with the running statistics."""
        params, _ = self._parts_of(0, len(self))
        mean, variance = self.running()
        scale = params.gain * torch.rsqrt(variance + BATCH_NORM_EPSILON)
        shift = params.shift - mean * scale
        h = x.transpose(1, 2)
        for layer in range(self.shape.layers):
            h = torch.bmm(params.weights[layer], h)
            h = torch.addcmul(shift[:, layer, :, None], h, scale[:, layer, :, None]).relu_()
        return torch.baddbmm(params.bias[:, :, None], params.weights[-1], h).argmax(dim=1)


def initial_stack(
    shape: Shape, kept: Tensor, settings: ClassifierSettings, dtype: torch.dtype, generators: list[torch.Generator]
) -> Stack:
    """Networks with initial weights drawn from `generators`. kept: (A, W), the columns that each of them sees.

    The weights of the other columns are zero and stay zero: with zero inputs, gradient and decay are zero too.
    """
    _, length = _layout(shape)
    flat = torch.zeros(len(generators), length, dtype=dtype, device=kept.device)
    params = parts(flat, shape)
    params.gain.fill_(1)
    for run, generator in enumerate(generators):
        seen = int(kept[run].sum())
        weights, bias = initial_weights(seen, shape.classes, settings, dtype, generator)
        params.weights[0][run][:, kept[run]] = weights[0]
        for stacked, weight in zip(params.weights[1:], weights[1:], strict=True):
            stacked[run] = weight
        params.bias[run] = bias
    mean = torch.zeros(len(generators), shape.layers, shape.hidden, dtype=dtype, device=kept.device)
    return Stack(shape, flat, mean, torch.ones_like(mean))
