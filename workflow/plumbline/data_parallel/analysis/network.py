"""The α–β model: what an all-reduce costs, and what that predicts for more devices than are at hand.

A ring all-reduce of B bytes among N ranks takes 2 (N - 1) latencies and sends 2 (N - 1) / N · B bytes (Thakur et al.
2005, "Optimization of Collective Communication Operations in MPICH", IJHPCA 19, section 4.5; Patarasuk & Yuan 2009).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plumbline.data_parallel.analysis.speedups import Speedup
from plumbline.data_parallel.record import AllReduce, ComparisonRecord, TrialRecord

HERE = "measured here"
PREDICTED_WORLDS = (8, 64, 1024)


@dataclass(frozen=True, kw_only=True)
class Network:
    """What links the ranks."""

    name: str
    latency_seconds: float
    bytes_per_second: float

    def all_reduce_seconds(self, size: float, world: int) -> float:
        """Seconds of a ring all-reduce of `size` bytes."""
        return 2 * (world - 1) * self.latency_seconds + 2 * (world - 1) / world * size / self.bytes_per_second


INTERCONNECTS = (
    Network(name="InfiniBand NDR (400 Gb/s, 5 µs)", latency_seconds=5e-6, bytes_per_second=50e9),
    Network(name="10 Gb/s Ethernet (1.25 GB/s, 30 µs)", latency_seconds=30e-6, bytes_per_second=1.25e9),
)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Speed-up over one process that the model gives."""

    network: str
    world: int
    scaling: str
    speedup: float
    is_fitted: bool = False
    """Whether the contention was taken from this very speed-up as measured, so that nothing was predicted."""
    contention: float = 1.0
    """How many times as long an all-reduce was taken to last in training as alone."""
    contention_ends: tuple[float, float] | None = None
    """Those of the interval; None where it was not fitted."""


@dataclass(frozen=True, kw_only=True)
class Contention:
    """What an all-reduce costs in training, over what it costs alone."""

    factor: float
    ends: tuple[float, float] | None
    """From the interval of what weak scaling reaches of independent processes."""
    world: int | None
    """The world whose weak scaling it was taken from; None where it is assumed."""


def fitted(measured: Sequence[AllReduce]) -> Network | None:
    """The latency and bandwidth that fit the medians best, with equal weight on the relative error of each size."""
    if not measured:
        return None
    seconds = np.array([np.median(one.seconds) for one in measured])
    design = np.array([[2 * (one.world - 1), 2 * (one.world - 1) / one.world * one.bytes] for one in measured])
    (latency, per_byte), *_ = np.linalg.lstsq(design / seconds[:, None], np.ones(len(seconds)), rcond=None)
    smallest = float(min(seconds)) * 1e-3
    return Network(
        name=HERE,
        latency_seconds=max(float(latency), smallest),
        bytes_per_second=1 / max(float(per_byte), 1e-15),
    )


def speedup(
    network: Network,
    *,
    step_seconds: float,
    size: float,
    world: int,
    scaling: str,
    divided: float = 1.0,
    ceiling: float = 1.0,
    contention: float = 1.0,
) -> float:
    """Predicted tokens per second over those of one process, when nothing overlaps.

    step_seconds: of one process on its batch. size: bytes of the gradients. divided: the share of the step that strong
    scaling divides by the world; every rank does the rest in full. ceiling: the share of its speed alone that
    a process keeps when all of them compute at once, without talking. contention: see `contention_here`.
    """
    left = 1 - divided + divided / world if scaling == "strong" else 1.0
    compute = step_seconds / ceiling * left
    total = compute + contention * network.all_reduce_seconds(size, world)
    work = world if scaling == "weak" else 1
    return work * step_seconds / total


def fixed_seconds(records: Sequence[TrialRecord]) -> float:
    """Seconds of a step of one process that no batch changes: the optimizer above all; 0 where no such trial has run.

    Data, forward and backward pass are the rest, of which a rank with a part of the batch does a part.
    """
    epochs = [epoch for record in records if record.world == 1 for epoch in record.epochs]
    warm = epochs[1:] or epochs
    fixed = sum(epoch.optimizer_seconds + epoch.control_seconds for epoch in warm)
    return fixed / sum(epoch.steps for epoch in warm) if warm else 0.0


def contention_here(network: Network, step_seconds: float, size: float, found: Sequence[Speedup]) -> Contention | None:
    """How many times as long an all-reduce lasts in training as alone; None without a method that scales weakly.

    In training, ranks wait for the slowest one, gradients have left the cache, and the threads that send take cores
    from those that compute; what overlaps with the backward pass counts the other way. With weak scaling, ranks take
    the steps that independent processes take, in turns of the same rounds: what a step lasts longer is the all-reduce.
    From the first method in the smallest world.
    """
    weak = [one for one in found if one.turns.scaling == "weak" and one.of_ceiling is not None]
    if not weak:
        return None
    one = min(weak, key=lambda each: each.turns.world)
    assert one.of_ceiling is not None
    lasts = step_seconds * one.turns.world / one.ratio.value
    alone = network.all_reduce_seconds(size, one.turns.world)
    reached = (one.of_ceiling.value, one.of_ceiling.high, one.of_ceiling.low)
    factor, *ends = (max(lasts * (1 - share), 0.0) / alone for share in reached)
    return Contention(factor=factor, ends=(ends[0], ends[1]), world=one.turns.world)


def predictions(record: ComparisonRecord, found: Sequence[Speedup], fixed: float) -> list[Prediction]:
    """For the measured worlds on this machine's network, and for larger ones on named interconnects.

    There every process has a device of its own, as fast as the one measured here, and a network port of its own, so an
    all-reduce lasts as long as alone. fixed: the seconds of a step that ranks do not divide among them.
    """
    network = fitted(record.all_reduces)
    if network is None or not record.candidates or record.parameters is None or record.step_tokens is None:
        return []
    step, size = float(np.median(record.candidates[0].seconds)) * record.step_tokens, 4.0 * record.parameters
    step_of: Any = {"step_seconds": step, "size": size, "divided": max(1 - fixed / step, 0.0)}
    ceilings = {one.turns.world: one.efficiency.value for one in found if one.turns.scaling == "independent"}
    contention = contention_here(network, step, size, found) or Contention(factor=1.0, ends=None, world=None)
    predicted = []
    for world, ceiling in sorted(ceilings.items()):
        here: Any = {"world": world, "ceiling": ceiling, "contention": contention.factor}
        for scaling in ("strong", "weak"):
            value = speedup(network, **step_of, **here, scaling=scaling)
            is_fitted = scaling == "weak" and world == contention.world
            place: Any = {"network": network.name, "world": world, "scaling": scaling, "is_fitted": is_fitted}
            ends = contention.ends if is_fitted else None
            predicted.append(Prediction(**place, speedup=value, contention=contention.factor, contention_ends=ends))
    for other in INTERCONNECTS:
        for world in PREDICTED_WORLDS:
            for scaling in ("strong", "weak"):
                if scaling == "strong" and record.batch is not None and world > record.batch:
                    continue  # a rank without a sequence
                value = speedup(other, **step_of, world=world, scaling=scaling)
                predicted.append(Prediction(network=other.name, world=world, scaling=scaling, speedup=value))
    return predicted
