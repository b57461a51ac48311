"""What takes turns in a block of captured workloads: each arm is timed, checked, and counted in the same way."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from plumbline.core.measure.interleave import CONTROL, Candidate, interleave
from plumbline.disaggregation.baselines.owner import Owner
from plumbline.disaggregation.blocks.links import Network
from plumbline.disaggregation.measure import BlockSpec
from plumbline.disaggregation.runtime.transport.meter import counted
from plumbline.disaggregation.runtime.transport.remote import Remote
from plumbline.disaggregation.settings import Link, Shapes, WorkloadName
from plumbline.disaggregation.workloads.outputs import check, timed

Count = Callable[[], tuple[int | None, int]]
"""Bytes both ways and round trips so far: no bytes where they cannot be counted."""


class MeasureGraphsSpec(BlockSpec):
    """What decides a block's result."""

    pairs: list[tuple[WorkloadName, Link]]
    """Workloads and links."""
    shapes: Shapes


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One variant, or what tells how fast it could be."""

    run: Callable[[], float]
    """Seconds of one turn. Raises OutcomeError for other outputs than local's."""
    kind: str = "variant"
    warms: Callable[[], object] | None = None
    """What warms the processes at work before a turn, where `run` would take long; None: `run`."""
    count: Count | None = None
    """None where nothing is sent."""
    counted_by: str = "protocol"
    check: Callable[[], None] = field(default=lambda: None)
    """Called once, after the first turn: whether what is kept elsewhere is local's."""

    def traffic(self) -> dict[str, Any]:
        """Bytes and round trips of the first turn, as a record has them."""
        before = self.count and self.count()
        self.run()
        after = self.count and self.count()
        self.check()
        if before is None or after is None or after[1] == before[1]:
            return {"bytes": None, "round_trips": None}
        sent = None if after[0] is None or before[0] is None else after[0] - before[0]
        trips = {"bytes": sent, "round_trips": after[1] - before[1]}
        return trips if sent is None else trips | {"counted_by": self.counted_by}


def by_protocol(remotes: Sequence[Remote]) -> tuple[int, int]:
    """Bytes and round trips of these connections so far."""
    meters = [one.wire.meter for one in remotes]
    return sum(one.sent_bytes + one.received_bytes for one in meters), sum(one.round_trips for one in meters)


class Behind:
    """A program behind calls to its owner."""

    def __init__(self, owner: Owner, between: Network, program: str, inputs: Mapping[str, Tensor]) -> None:
        self._owner, self._between, self._program, self._inputs = owner, between, program, dict(inputs)
        self._calls = 0

    def arm(self, name: str, expected: Mapping[str, Tensor]) -> Arm:
        """What takes turns under `name`."""
        return Arm(
            run=partial(timed, name, self._run, expected),
            count=self._count,
            counted_by="interface",
            check=partial(self._check, name, expected),
        )

    def _run(self) -> dict[str, Tensor]:
        self._calls += 1
        found: dict[str, Tensor] = self._owner.step((self._program, self._inputs))
        return found

    def _count(self) -> tuple[int | None, int]:
        return self._between.interface_bytes(), self._calls

    def _check(self, name: str, expected: Mapping[str, Tensor]) -> None:
        for state, value in self._owner.step((self._program, None)).items():
            check(f"{name}: {state}, which it keeps,", value, expected[state])


def introduced(owners: Mapping[str, Owner]) -> dict[str, Any]:
    """Which processes own what is called, on which cores, with how many threads.

    To be called before anything is counted: the first call of an owner behind rpc has a message more.
    """
    pids = {name: owner.process() for name, owner in owners.items()}
    return {
        "owner_pids": pids,
        "owner_threads": {name: owner.threads() for name, owner in owners.items()},
        "owner_cores": {name: sorted(os.sched_getaffinity(pid)) for name, pid in pids.items()},
    }


def ended(remotes: Sequence[Remote]) -> dict[str, Any]:
    """What the connections have sent, which are closed, and the process that called."""
    found = counted([one.wire for one in remotes])
    for remote in remotes:
        remote.close()
    return found | {"client_pid": os.getpid()}


def in_turns(
    spec: BlockSpec, arms: Mapping[str, Arm], seed: Sequence[int], *, warms: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Every arm as a record has it, the first beside its second copy, and whether the time sufficed.

    warms: whether the processes at work are warmed before every turn. A process whose turn follows another's starts
    with cold caches.
    """
    traffic = {name: arm.traffic() for name, arm in arms.items()}  # warms up, too
    first, *others = [
        Candidate(name=name, run=arm.run, warm=(arm.warms or arm.run) if warms else None) for name, arm in arms.items()
    ]
    rounds = interleave(
        first,
        others,
        seconds=spec.seconds,
        precision=spec.precision,
        min_rounds=spec.min_rounds,
        seed=seed,
    )
    told = []
    for name, seconds in zip(rounds.names, np.transpose(rounds.seconds), strict=True):
        own, kind = (first.name, "variant") if name == CONTROL else (name, arms[name].kind)
        told.append({"name": name, "kind": kind, "seconds": seconds.tolist(), **traffic[own]})
    return told, rounds.precise
