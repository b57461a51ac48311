"""Weights in one piece: as they travel, and as they are hashed."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plumbline.disaggregation.runtime.models.weights import RefusedError
from plumbline.disaggregation.runtime.transport import buffers
from plumbline.disaggregation.runtime.transport.buffers import TensorSpec
from plumbline.disaggregation.runtime.transport.protocol import WireError, json_bytes


class Weights:
    """Named tensors in one buffer, sorted by name, each at a multiple of 64 bytes; `content` is their hash."""

    def __init__(self, specs: Mapping[str, TensorSpec], memory: Tensor) -> None:
        """memory: bytes, as `buffers.tensors_in` reads them."""
        self.specs = dict(specs)
        self.memory = memory
        self.tensors = dict(zip(self.specs, buffers.tensors_in(memory, list(self.specs.values())), strict=True))
        self.description = described(self.specs)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Weights":
        """A copy of `tensors` in one piece."""
        named = {name: tensors[name].detach().cpu() for name in sorted(tensors)}
        memory = torch.zeros(buffers.total(specs := list(_specs(named).values())), dtype=torch.uint8)
        for place, tensor in zip(buffers.tensors_in(memory, specs), named.values(), strict=True):
            place.copy_(tensor)
        return cls(_specs(named), memory)

    @property
    def content(self) -> bytes:
        """SHA-256 over names, types, shapes and bytes."""
        digest = hashlib.sha256(self.description)
        digest.update(buffers.raw(self.memory))
        return digest.digest()

    @property
    def bytes(self) -> int:
        """Of the buffer."""
        return len(self.memory)

    def part(self, names: Sequence[str]) -> "Weights":
        """A copy of the weights of these names."""
        return self if set(names) == self.specs.keys() else Weights.of({name: self.tensors[name] for name in names})

    def to(self, device: torch.device) -> "Weights":
        """The same on a device."""
        return self if device.type == "cpu" else Weights(self.specs, self.memory.to(device))


def described(specs: Mapping[str, TensorSpec]) -> bytes:
    """Names, types and shapes as JSON."""
    return json_bytes([[name, str(one.dtype).removeprefix("torch."), list(one.shape)] for name, one in specs.items()])


def received(description: Tensor, memory: Tensor) -> Weights:
    """Weights as `described` and sent. Raises RefusedError."""
    try:
        listed = json.loads(bytes(buffers.raw(description)))
        specs = {str(name): TensorSpec(buffers.NAMES[dtype], tuple(map(int, shape))) for name, dtype, shape in listed}
    except (ValueError, TypeError, KeyError, RecursionError, WireError):
        raise RefusedError("WEIGHTS: the description is malformed") from None
    if not specs or any(size < 0 for one in specs.values() for size in one.shape):
        raise RefusedError("WEIGHTS: the description names no weights, or negative sizes")
    if buffers.total(list(specs.values())) != len(memory):
        raise RefusedError(f"WEIGHTS: {len(memory)} bytes, and the description has other sizes")
    return Weights(specs, memory)


def _specs(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(one.dtype, tuple(one.shape)) for name, one in tensors.items()}
