"""How close a trial came to the machine's limits: bandwidth and FLOP utilisation, and share of the ceiling."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.models.manifest import Shapes


class Step(NamedTuple):
    """The least that a decode step must move and compute, averaged over a call's steps, and the final cache size."""

    bytes: float
    flops: float
    kv_bytes: int
    """Keys and values of all tokens of all rows at the end."""


def decode_step(weights: Sequence[Tensor], shapes: Shapes, shape: Shape, itemsize: int) -> Step:
    """A decode step for all rows of `shape`, with numbers of `itemsize` bytes.

    Bytes: every weight once, by its storage, and the keys and values of every row's tokens so far. FLOPs: two for each
    weight and row, and for each row, layer, head and token so far two dot products of the head's size (query with
    key, share with value). Step number i has prompt + i tokens so far, its own among them: prompt + generated / 2 in
    the mean of i = 1 … generated − 1.
    """
    storages = {weight.untyped_storage().data_ptr() or id(weight): weight.untyped_storage() for weight in weights}
    read = sum(storage.nbytes() for storage in storages.values())
    context = shape.prompt + shape.generated / 2
    token = 2 * shapes.layers * shapes.kv_heads * shapes.head_size * itemsize
    attention = 4 * shapes.layers * shapes.heads * shapes.head_size * context
    return Step(
        bytes=read + shape.batch * token * context,
        flops=shape.batch * (2 * read / itemsize + attention),
        kv_bytes=shape.batch * token * (shape.prompt + shape.generated),
    )


def roofline(
    *,
    batch: int,
    step_bytes: float,
    step_flops: float,
    bandwidth: float | None,
    flops: float | None,
    tokens_per_second: float | None,
) -> dict[str, Any]:
    """Ceiling, which limit binds, MBU, MFU and share of the ceiling of a decode step for `batch` rows, as JSON.

    A step that moves `step_bytes` and computes `step_flops` takes at least max(bytes / bandwidth, FLOPs / peak)
    seconds (Williams et al. 2009, "Roofline"). What needs an unknown limit or an unknown decode rate is left out.
    """
    found: dict[str, Any] = {
        "decode_step_bytes": step_bytes,
        "decode_step_flops": step_flops,
        "limit_bandwidth_bytes_per_second": bandwidth,
        "limit_flops_per_second": flops,
    }
    if not (bandwidth and flops):
        return found
    moving, computing = step_bytes / bandwidth, step_flops / flops
    ceiling = batch / max(moving, computing)
    found |= {"ceiling_tokens_per_second": ceiling, "binds": "bandwidth" if moving >= computing else "compute"}
    if tokens_per_second is not None:
        steps = tokens_per_second / batch
        found |= {"mbu": steps * moving, "mfu": steps * computing, "ceiling_share": tokens_per_second / ceiling}
    return found
