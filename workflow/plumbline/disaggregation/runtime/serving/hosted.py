"""What a connection has of captured graphs on a worker: graphs with weights, runs that wait, values that are held.

Here too are the fixed bodies of the operations on graphs; `protocol` has the operations.
"""

import struct
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum

from torch import Tensor

from plumbline.disaggregation.runtime.graphs.program import Program
from plumbline.disaggregation.runtime.models.flat import Weights
from plumbline.disaggregation.runtime.models.weights import RefusedError
from plumbline.disaggregation.runtime.transport.remote import Remote

HANDLE = struct.Struct("<I")
WEIGHTS = struct.Struct("<32sQ")
"""Hash of the weights, zeros for those that are this graph's alone; their bytes."""
PRIVATE = bytes(32)
EXEC = struct.Struct("<IBB")
"""Number of the run, which its answer and errors have as session; numbers of inputs and outputs."""
PLACE = struct.Struct("<BI")
"""Where an input comes from, or an output goes to, and its number there."""
TOKEN_BYTES = 16
PEER_SEND = struct.Struct(f"<{TOKEN_BYTES}sI")


class Source(IntEnum):
    """Where an input comes from."""

    SENT = 1
    """With the frame."""
    KEPT = 2
    """An earlier run has left it here."""
    ARRIVED = 3
    """Another run has made it for this one, perhaps on another worker."""


class Way(IntEnum):
    """Where an output goes."""

    DROP = 0
    RETURN = 1
    KEEP = 2
    LOCAL = 3
    """To a run of the same connection."""
    SEND = 4
    """Into the peer's inbox."""


@dataclass(eq=False)
class Loaded:
    """A graph of a connection, and what it reads besides its inputs once it has weights."""

    program: Program
    weights: Weights | None = None
    prepared: dict[str, Tensor] = field(default_factory=dict)
    private_bytes: int = 0
    """Reserved for weights that travel with every call."""

    def use(self, weights: Weights) -> None:
        """Takes these weights. Raises RefusedError when some are missing, or have other types or shapes."""
        for name, one in self.program.graph.weights.items():
            spec = weights.specs.get(name)
            known = spec and (str(spec.dtype).removeprefix("torch."), list(spec.shape))
            if known != (one.dtype, one.shape):
                raise RefusedError(f"WEIGHTS: {name[:80]} is missing, or is not {one.dtype} {one.shape}")
        self.weights, self.prepared = weights, self.program.prepare(weights.tensors)


@dataclass(eq=False)
class Run:
    """One EXEC that waits for its turn, and for its inputs."""

    number: int
    loaded: Loaded
    inputs: list[tuple[int, int]]
    outputs: list[tuple[int, int]]
    sent: list[Tensor]


@dataclass(eq=False)
class Hosted:
    """What a connection has here."""

    graphs: dict[int, Loaded] = field(default_factory=dict)
    runs: deque[Run] = field(default_factory=deque)
    kept: dict[int, Tensor] = field(default_factory=dict)
    arrived: dict[int, Tensor] = field(default_factory=dict)
    contents: set[bytes] = field(default_factory=set)
    expected: tuple[bytes, int] | None = None
    """Hash and bytes of weights that are to come."""
    inbox: bytes | None = None
    peer: Remote | None = None
    peer_inbox: bytes = b""
    waiting_bytes: int = 0
    """Of inputs of runs that wait."""

    @property
    def bytes(self) -> int:
        """Of all values that are held for it."""
        return self.waiting_bytes + sum(one.nbytes for one in [*self.kept.values(), *self.arrived.values()])

    def is_ready(self) -> bool:
        """Whether the first run has its inputs."""
        return bool(self.runs) and all(
            kind != Source.ARRIVED or number in self.arrived for kind, number in self.runs[0].inputs
        )
