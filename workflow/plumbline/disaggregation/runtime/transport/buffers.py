"""Tensors on the wire: a description of a few bytes, and buffers that begin at multiples of 64 bytes."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plumbline.disaggregation.runtime.transport.protocol import WireError

ALIGNMENT = 64
MAX_TENSORS = 16
MAX_DIMENSIONS = 8
DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
)
"""A type's code is its place here, counted from 1. Bool is left out: not every byte is one."""
CODES = {dtype: code for code, dtype in enumerate(DTYPES, start=1)}
NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


@dataclass(frozen=True)
class TensorSpec:
    """The type and shape of a tensor that is to come."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes, without padding."""
        return math.prod(self.shape) * self.dtype.itemsize


def describe(tensors: Sequence[Tensor]) -> bytes:
    """One byte with the number of tensors; of each its type, its number of dimensions, and these, 8 bytes each."""
    parts = [struct.pack("<B", len(tensors))]
    for tensor in tensors:
        parts.append(struct.pack(f"<BB{tensor.ndim}q", CODES[tensor.dtype], tensor.ndim, *tensor.shape))
    return b"".join(parts)


def parse(body: memoryview, limit: int) -> tuple[list[TensorSpec], int]:
    """What `describe` wrote at the start of `body`, and where it ends.

    Raises WireError for an unknown type, a negative size, or when all buffers together exceed `limit` bytes.
    """
    try:
        (count,) = struct.unpack_from("<B", body)
        if not 0 < count <= MAX_TENSORS:
            raise WireError(f"{count} tensors in a frame, of at most {MAX_TENSORS}")
        specs, place = [], 1
        for _ in range(count):
            code, dimensions = struct.unpack_from("<BB", body, place)
            if not 0 < code <= len(DTYPES):
                raise WireError(f"unknown dtype {code}")
            if dimensions > MAX_DIMENSIONS:
                raise WireError(f"{dimensions} dimensions, of at most {MAX_DIMENSIONS}")
            shape = struct.unpack_from(f"<{dimensions}q", body, place + 2)
            if any(size < 0 for size in shape):
                raise WireError(f"negative shape {list(shape)}")
            if math.prod(max(size, 1) for size in shape) > limit:  # also where another dimension is 0
                raise WireError(f"oversized shape {list(shape)}: buffers may have {limit} bytes")
            specs.append(TensorSpec(DTYPES[code - 1], shape))
            place += 2 + 8 * dimensions
    except struct.error:
        raise WireError("the description of the tensors is cut off") from None
    if total(specs) > limit:
        raise WireError(f"oversized buffers: {total(specs)} bytes, of at most {limit}")
    return specs, place


def total(specs: Sequence[TensorSpec]) -> int:
    """Bytes of all buffers: each but the last is padded to a multiple of 64."""
    sizes = [spec.size for spec in specs]
    return sum(map(padded, sizes[:-1])) + sum(sizes[-1:])


def padded(size: int) -> int:
    """The multiple of 64 at or above `size`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, without a copy where it is contiguous."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return memoryview(flat.numpy())  # type: ignore[arg-type]


def pieces(tensors: Sequence[Tensor]) -> list[memoryview]:
    """The buffers of `tensors` as `total` counts them."""
    found: list[memoryview] = []
    for number, tensor in enumerate(tensors, start=1):
        data = raw(tensor)
        found.append(data)
        if number < len(tensors) and (gap := padded(len(data)) - len(data)):
            found.append(memoryview(bytes(gap)))
    return [piece for piece in found if len(piece)]


def tensors_in(buffer: Tensor, specs: Sequence[TensorSpec]) -> list[Tensor]:
    """The tensors in a buffer of bytes, which is theirs from now on."""
    found, place = [], 0
    for spec in specs:
        found.append(buffer[place : place + spec.size].view(spec.dtype).view(spec.shape))
        place += padded(spec.size)
    return found
