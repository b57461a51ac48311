"""What a worker keeps of one connection, all of which ends with it."""

import socket
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from torch import Tensor

from plumbline.disaggregation.runtime.models.session import Session
from plumbline.disaggregation.runtime.models.weights import Held, RefusedError
from plumbline.disaggregation.runtime.transport import buffers
from plumbline.disaggregation.runtime.transport.handshake import expect_hello
from plumbline.disaggregation.runtime.transport.protocol import Limits, Op
from plumbline.disaggregation.runtime.transport.wire import Wire


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a worker gives its clients."""

    connections: int = 256
    sessions: int = 64
    """Of one connection, at a time."""
    models: int = 64
    """Of one connection, at a time."""
    session_bytes: int = 1 << 30
    """Of the keys and values of a session, and again of the logits of one of its steps."""
    all_sessions_bytes: int = 8 << 30
    """Of both, over all sessions of all connections."""
    weights_bytes: int = 8 << 30
    """Of all models together."""
    prompt_bytes: int = 1 << 24
    """Of the buffers of a prompt and its mask; of a value that another worker sends."""
    peers: tuple[str, ...] = ()
    """Addresses of workers that clients may have this one send values to."""


@dataclass
class Budget:
    """Memory of all sessions together, counted as what their requests need: it is not taken before it is reserved."""

    most_bytes: int
    bytes: int = 0

    def reserve(self, session: Session, size: int) -> None:
        """Has `session` hold so many bytes in all. Raises RefusedError when the others leave less."""
        others = self.bytes - session.reserved_bytes
        if others + size > self.most_bytes:
            raise RefusedError(f"a session of {size} bytes: the others hold {others} of {self.most_bytes}; free some")
        self.bytes, session.reserved_bytes = others + size, size

    def release(self, session: Session) -> None:
        """Gives up what `session` holds."""
        self.bytes -= session.reserved_bytes
        session.reserved_bytes = 0


class State(StrEnum):
    """How far a connection is."""

    NEW = "new"
    GREETED = "greeted"
    """It said hello, perhaps one that was recorded elsewhere."""
    OPEN = "open"
    """A frame under this connection's key has come: its peer holds the secret, now."""


@dataclass
class Upload:
    """A model whose weights are on their way."""

    config: dict[str, Any]
    dtype: str
    content: str
    missing: dict[str, buffers.TensorSpec]
    bytes: int
    """Of all its weights, which the store has reserved."""
    weights: dict[str, Tensor] = field(default_factory=dict)

    def take(self, name: str, tensors: list[Tensor]) -> None:
        """Keeps a weight. Raises RefusedError for an unknown name, or another type or shape."""
        spec = self.missing.get(name)
        if spec is None or len(tensors) != 1:
            raise RefusedError(f"PUT: {name!r} is not a weight that is missing")
        given = buffers.TensorSpec(tensors[0].dtype, tuple(tensors[0].shape))
        if given != spec:
            raise RefusedError(f"PUT: {name} is {given.dtype} {list(given.shape)}, not {spec.dtype} {list(spec.shape)}")
        self.weights[name] = tensors[0]
        del self.missing[name]


class Connection:
    """A client of the worker."""

    def __init__(self, connection: socket.socket, peer: str, secret: bytes, limits: Limits, bounds: Bounds) -> None:
        self.wire = Wire(connection, limits)
        expect_hello(self.wire, secret)
        taken = {Op.PREFILL: bounds.prompt_bytes, Op.PEER_SEND: bounds.prompt_bytes}
        self.wire.buffer_limits = dict.fromkeys(Op, 0) | taken
        self.peer = peer
        self.state = State.NEW
        self.began = time.monotonic()
        self.sessions: dict[int, Session] = {}
        self.models: dict[int, Held] = {}
        self.upload: Upload | None = None
        self.longest_wait_steps = 0
        """Steps of other sessions that one of this connection's has waited for, at most."""
        self.is_behind = False
        """Whether the worker waits for the peer to read its answers, and reads nothing from it."""
        self.parked: list[Any] = []
        """Tasks that go on once the peer has read its answers."""

    def expect_upload(self, upload: Upload | None) -> None:
        """Takes weights from now on; no more than one at a time, and none that is larger than the largest missing."""
        self.upload = upload
        sizes = [spec.size for spec in upload.missing.values()] if upload else []
        self.wire.buffer_limits[Op.PUT] = max(sizes, default=0)

    def expect_states(self) -> None:
        """Takes back the state of sessions that have shipped it, and nothing larger."""
        sizes = [session.awaited_bytes for session in self.sessions.values()]
        self.wire.buffer_limits[Op.DECODE] = max(sizes, default=0)

    def session(self, handle: int) -> Session:
        """The session that a frame names. Raises RefusedError when this connection has none of that number."""
        if handle not in self.sessions:
            raise RefusedError(f"foreign handle: session {handle} is not one of this connection")
        return self.sessions[handle]

    def model(self, handle: int) -> Held:
        """The model that a frame names. Raises RefusedError when this connection has not loaded it."""
        if handle not in self.models:
            raise RefusedError(f"foreign handle: model {handle} is not one of this connection")
        return self.models[handle]

    def unused_model(self, handle: int) -> Held:
        """The same, of a model without sessions. Raises RefusedError for any other."""
        held = self.model(handle)
        if any(session.held is held for session in self.sessions.values()):
            raise RefusedError(f"model {handle} has sessions; free them first")
        return held
