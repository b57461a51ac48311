"""How close a trial came to the machine's limits: bandwidth and FLOP utilisation, and share of the ceiling."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from plumbline.core.files import read_json
from plumbline.core.settings import Settings, validated
from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.models.manifest import Shapes

if TYPE_CHECKING:
    from plumbline.throughput.measurement.counted import Counted

LLAMA = "llama"


class Bandwidth(Settings):
    """How fast some threads read a working set again and again."""

    threads: int
    bytes: int
    """Size of the working set."""
    bytes_per_second: float


class MatmulRate(Settings):
    """How fast some threads multiply matrices."""

    threads: int
    dtype: str
    flops_per_second: float


class Limits(Settings):
    """What a machine can do, as the stage `limits` measured it."""

    machine: dict[str, Any]
    device: str
    bandwidths: list[Bandwidth]
    """For each number of threads, over a ladder of working sets."""
    matmul_rates: list[MatmulRate]
    samples: dict[str, list[dict[str, Any]]] = {}
    """The raw samples that the limits are the best of."""
    spec: dict[str, Any] = {}

    def bytes_per_second(self, read: float, threads: int) -> float:
        """Bandwidth of `threads` threads that read `read` bytes again and again, as a decode step does.

        Interpolated between the two nearest working sets, linearly in the logarithms; beyond the ladder, its end. A
        working set is read at least as fast as any larger one, so where it was measured slower, the larger one counts.
        """
        count = _measured(threads, (each.threads for each in self.bandwidths))
        known = sorted((each.bytes, each.bytes_per_second) for each in self.bandwidths if each.threads == count)
        sizes, rates = np.log(np.array(known)).T
        fastest = np.maximum.accumulate(rates[::-1])[::-1]
        return float(np.exp(np.interp(np.log(read), sizes, fastest)))

    def flops_per_second(self, dtype: str, threads: int) -> float | None:
        """Matmul rate of `threads` threads; None for a dtype that was not measured."""
        known = {each.threads: each.flops_per_second for each in self.matmul_rates if each.dtype == dtype}
        return known[_measured(threads, known)] if known else None


def read_limits(path: Path) -> Limits:
    """The limits at `path`. Raises UserError when it holds something else."""
    return validated(Limits, read_json(path), str(path))


def _measured(threads: int, known: Iterable[int]) -> int:
    """The smallest number of threads measured that is at least `threads`, else the largest: a limit is not exceeded."""
    counts = sorted(set(known))
    return next((count for count in counts if count >= threads), counts[-1])


class Step(NamedTuple):
    """The least that a decode step must move and compute, averaged over a call's steps, and the memory a call needs.

    None where it is not known: for an engine that does not count, of a model that is no Llama.
    """

    bytes: float | None
    flops: float | None
    kv_bytes: int | None
    """Keys and values of all tokens of all rows at the end."""
    activation_bytes: int
    """The least that a call's activations take: hidden states of the prompts, and logits in float32 for all rows."""


def decode_step(
    weights: Sequence[Tensor], counted: "Counted | None", shapes: Shapes, shape: Shape, itemsize: int
) -> Step:
    """A decode step for all rows of `shape`, with numbers of `itemsize` bytes: as `counted`, else by arithmetic.

    The arithmetic holds for a Llama. Bytes: every weight once, by its storage, and the keys and values of every row's
    tokens so far. FLOPs: two for each weight and row, and for each row, layer, head and token so far two dot products
    of the head's size (query with key, share with value). Step number i has prompt + i tokens so far, its own among
    them: prompt + generated / 2 in the mean of i = 1 … generated − 1.
    """
    activations = shape.batch * (shape.prompt * shapes.width * itemsize + 4 * shapes.vocabulary)
    if counted is not None:
        read = counted.weight_bytes + counted.cache_bytes
        return Step(read, counted.flops, counted.last_cache_bytes, activations)
    if shapes.kind != LLAMA:
        return Step(None, None, None, activations)
    storages = {weight.untyped_storage().data_ptr() or id(weight): weight.untyped_storage() for weight in weights}
    weight_bytes = sum(storage.nbytes() for storage in storages.values())
    context = shape.prompt + shape.generated / 2
    token = 2 * shapes.layers * shapes.kv_heads * shapes.head_size * itemsize
    attention = 4 * shapes.layers * shapes.heads * shapes.head_size * context
    return Step(
        bytes=weight_bytes + shape.batch * token * context,
        flops=shape.batch * (2 * weight_bytes / itemsize + attention),
        kv_bytes=shape.batch * token * (shape.prompt + shape.generated),
        activation_bytes=activations,
    )


def roofline(
    *,
    batch: int,
    step_bytes: float | None,
    step_flops: float | None,
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
    if not (bandwidth and flops and step_bytes and step_flops):
        return found
    moving, computing = step_bytes / bandwidth, step_flops / flops
    ceiling = batch / max(moving, computing)
    found |= {"ceiling_tokens_per_second": ceiling, "binds": "bandwidth" if moving >= computing else "compute"}
    if tokens_per_second is not None:
        steps = tokens_per_second / batch
        found |= {"mbu": steps * moving, "mfu": steps * computing, "ceiling_share": tokens_per_second / ceiling}
    return found
