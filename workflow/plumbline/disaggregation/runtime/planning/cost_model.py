"""How long a plan takes, predicted from what its graphs compute and what it moves.

latency = round trips × RTT + bytes ÷ bandwidth + Σ max(FLOPs ÷ peak, bytes ÷ memory bandwidth)
          + operations × time of one + serialisation + graphs and requests × a time of each

The sum is a roofline (Williams, Waterman & Patterson 2009, CACM 52) over the parts of a graph's operations, which count
by their FLOPs and bytes alone, never by name: attention as products, a softmax and copies. Calls wait for what they
read, and for their worker: K equal stages take m + K − 1 times as long for m micro-batches as one of them, and branches
as long as the longest. Imports no torch.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_json
from plumbline.core.settings import Settings, validated

HERE = -1
"""In place of a worker's number: the client's own process."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Work(Settings):
    """What one call of a graph computes. What depends on weights alone is left out, and so are views."""

    operations: Count = 0
    """How many are called."""
    parts: list[tuple[Count, Count, Count]] = []
    """FLOPs, bytes read and written, and how many of the operations' parts have both."""

    @cached_property
    def columns(self) -> NDArray[np.float64]:
        """(3, n): FLOPs, bytes and counts."""
        return np.array(self.parts, dtype=np.float64).reshape(-1, 3).T


class CallDemand(Settings):
    """What one call of a plan takes."""

    worker: int
    work: str = ""
    """Name of the graph in `Demands.work`; empty: nothing is computed."""
    requests: PositiveInt = 1
    """Frames that ask for it: two where its weights come first."""
    sent_bytes: Count = 0
    """From the client; of a call here, what it serialises and checks."""
    returned_bytes: Count = 0
    hop_bytes: Count = 0
    """To another worker."""
    waits: list[int] = []
    """Calls before it whose outputs come to it through the client."""
    hops: list[int] = []
    """Calls before it whose outputs come to it from their worker."""
    answers: bool = True
    """Whether anything comes back to the client."""


class Demands(Settings):
    """What plans take, by name; graphs that several of them run are told once."""

    work: dict[str, Work] = {}
    plans: dict[str, list[CallDemand]] = {}
    """No calls: one round trip of the smallest frames."""


class LinkCosts(Settings):
    """A network between client and workers."""

    round_trip_seconds: Positive
    """Of the smallest frames, waking both sides included."""
    bytes_per_second: Positive


class CostModel(Settings):
    """Costs of one machine and its links, as the micro workload calibrates them; a JSON file with units in its keys."""

    schema_version: Literal[1] = 1
    flops_per_second: Positive
    """Multiplications and additions that one worker does at most."""
    memory_bytes_per_second: Positive
    """What operations read and write at most."""
    operation_seconds: Positive
    """Of each operation, beside its parts: Python, dispatch, memory for its output."""
    graph_seconds: Positive
    """Of running a graph, wherever, beside its operations: what other work has left in the caches."""
    call_seconds: Positive
    """Of each request, at each end, beside the round trip and its graph: made, sent, parsed and answered."""
    serialisation_seconds_per_byte: Positive
    """Of the MAC, at each end."""
    sharing: Positive
    """How many times as long a computation takes while another worker computes too."""
    links: dict[str, LinkCosts]

    @classmethod
    def read(cls, path: Path) -> "CostModel":
        """The calibration in the file at `path`. Raises UserError that names the file and each wrong field."""
        values = read_json(path)
        if values is None:
            raise UserError(
                f"{path}: holds no calibration, because microbenchmark had no result; name a link for it under"
                " disaggregation.workloads, or see the findings for why it failed"
            )
        if not isinstance(values, dict):
            raise UserError(f"{path}: is not a calibration; `snakemake --cores all disaggregation` writes one")
        return validated(cls, values, str(path))

    def write(self, path: Path) -> None:
        """Writes the calibration to `path`, atomically."""
        write_json(path, self.model_dump(mode="json"))

    def compute_seconds(self, work: Work) -> float:
        """Of one call's operations, alone on its core."""
        flops, moved, counts = work.columns
        parts = np.maximum(flops / self.flops_per_second, moved / self.memory_bytes_per_second)
        return work.operations * self.operation_seconds + float(counts @ parts)

    def seconds(self, calls: Sequence[CallDemand], work: Mapping[str, Work], link: str) -> float:
        """From asking for the first of a plan's calls until everything has come back.

        Raises UserError for a link that was not calibrated.
        """
        if link not in self.links:
            raise UserError(f"the calibration has no link {link}; it has {', '.join(self.links) or 'none'}")
        if not calls:
            return self.links[link].round_trip_seconds
        graphs = {one.work for one in calls if one.work}
        alone = {name: self.graph_seconds + self.compute_seconds(work[name]) for name in graphs}
        found, busy = self._timeline(calls, alone, link)
        together = _overlap(busy)
        if self.sharing == 1 or not together:
            return found
        slower = 1 + (self.sharing - 1) * together
        return self._timeline(calls, {name: slower * one for name, one in alone.items()}, link)[0]

    def _timeline(
        self, calls: Sequence[CallDemand], compute: Mapping[str, float], link: str
    ) -> tuple[float, list[tuple[int, float, float]]]:
        """When the last answer is here, and when each worker computed: its number, from, to."""
        costs, between, each = self.links[link], self.links.get("loopback", self.links[link]), self._serialised
        sending = receiving = 0.0
        free: dict[int, float] = defaultdict(float)
        computed: list[float] = []
        answered: list[float] = []
        busy = []
        for call in calls:
            own = compute.get(call.work, 0.0)
            if call.worker == HERE:
                free[HERE] += 2 * each(call.sent_bytes) + own
                computed.append(free[HERE])
                answered.append(free[HERE])
                continue
            asked = max([sending, *(answered[one] for one in call.waits)])
            handled = call.requests * self.call_seconds
            sending = asked + handled + each(call.sent_bytes) + call.sent_bytes / costs.bytes_per_second
            given = [
                computed[one] + calls[one].hop_bytes / between.bytes_per_second + between.round_trip_seconds / 2
                for one in call.hops
            ]
            began = max([free[call.worker], sending + costs.round_trip_seconds / 2, *given])
            arrived = call.sent_bytes + sum(calls[one].hop_bytes for one in call.hops)
            given_away = call.returned_bytes + call.hop_bytes
            ended = began + handled + each(arrived) + own + each(given_away)
            free[call.worker] = ended
            busy.append((call.worker, began, ended))
            computed.append(ended)
            receiving = max(receiving, ended) + call.returned_bytes / costs.bytes_per_second + each(call.returned_bytes)
            answered.append(receiving + costs.round_trip_seconds / 2)
        last = [when for when, call in zip(answered, calls, strict=True) if call.answers]
        return max(last or computed), busy

    def _serialised(self, size: float) -> float:
        return size * self.serialisation_seconds_per_byte


def _overlap(busy: Sequence[tuple[int, float, float]]) -> float:
    """The share of the workers' time in which another of them is busy too."""
    total = sum(ended - began for _, began, ended in busy)
    both = sum(
        max(0.0, min(one[2], other[2]) - max(one[1], other[1]))
        for one, other in combinations(busy, 2)
        if one[0] != other[0]
    )
    return 2 * both / total if total else 0.0
