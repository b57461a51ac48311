"""Captured graphs on a worker: what a connection has loaded, the runs that wait, and values that go to other workers.

Graphs and weights are held once for all connections that name the same hash. Runs of a connection are done in their
order, each once its inputs are there; connections take turns.
"""

import secrets
import select
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plumbline.disaggregation.runtime.graphs.graph import Graph, parsed
from plumbline.disaggregation.runtime.graphs.program import Program, size_of
from plumbline.disaggregation.runtime.models.flat import Weights, received
from plumbline.disaggregation.runtime.models.weights import RefusedError, Store
from plumbline.disaggregation.runtime.serving.hosted import (
    EXEC,
    HANDLE,
    PEER_SEND,
    PLACE,
    PRIVATE,
    TOKEN_BYTES,
    WEIGHTS,
    Hosted,
    Loaded,
    Run,
    Source,
    Way,
)
from plumbline.disaggregation.runtime.serving.peers import Peers
from plumbline.disaggregation.runtime.transport import buffers
from plumbline.disaggregation.runtime.transport.protocol import Limits, Op
from plumbline.disaggregation.runtime.transport.wire import Frame

if TYPE_CHECKING:
    from plumbline.disaggregation.runtime.serving.connection import Bounds, Connection

OPS = frozenset({Op.GRAPH, Op.WEIGHTS, Op.EXEC, Op.FETCH, Op.INBOX, Op.PEER, Op.PEER_SEND})
MOST_GRAPHS = 64
MOST_WAITING = 1024
"""Graphs, and runs that wait, of a connection."""
MOST_GRAPH_BYTES = 1 << 24
MOST_DESCRIPTION_BYTES = 1 << 22


class Programs:
    """The graphs of a worker's connections."""

    def __init__(
        self,
        store: Store,
        bounds: "Bounds",
        secret: bytes,
        limits: Limits,
        epoll: select.epoll,
        tell: Callable[..., None],
    ) -> None:
        """epoll: that of the worker, which hands events of connections to other workers to `peers`. tell: sends an
        error to a client."""
        self.store, self.bounds = store, bounds
        self.peers = Peers(bounds.peers, secret, limits, epoll, tell)
        self._hosted: dict[Connection, Hosted] = {}
        self._programs: dict[bytes, Program] = {}
        self._weights: dict[bytes, tuple[Weights, int]] = {}
        """Content -> weights, and how many connections use them."""
        self._inboxes: dict[bytes, Connection] = {}
        self._turns: deque[Connection] = deque()
        self._handles = 0

    def handle(self, connection: "Connection", frame: Frame) -> None:
        """Answers a request. Raises RefusedError."""
        hosted = self._hosted.setdefault(connection, Hosted())
        match frame.op:
            case Op.GRAPH:
                self._graph(connection, hosted, frame)
            case Op.WEIGHTS:
                self._use_weights(connection, hosted, frame)
            case Op.EXEC:
                hosted.runs.append(self._run(hosted, frame))
                self._waken(connection, hosted)
            case Op.FETCH:
                if frame.session not in hosted.kept:
                    raise RefusedError(f"FETCH: nothing is kept as {frame.session}")
                connection.wire.send(Op.FETCH, frame.session, tensors=[hosted.kept[frame.session]])
            case Op.INBOX:
                if hosted.inbox is None:
                    hosted.inbox = secrets.token_bytes(TOKEN_BYTES)
                    self._inboxes[hosted.inbox] = connection
                connection.wire.send(Op.INBOX, body=hosted.inbox)
            case Op.PEER:
                self.peers.connect(connection, hosted, frame)
            case Op.PEER_SEND:
                self._arrive(frame)

    # Loading

    def _graph(self, connection: "Connection", hosted: Hosted, frame: Frame) -> None:
        """The handle of a graph; 0 where it is to be sent first."""
        program = self._programs.get(frame.body)
        if program is None and not frame.tensors:
            connection.wire.buffer_limits[Op.GRAPH] = MOST_GRAPH_BYTES
            connection.wire.send(Op.GRAPH, body=HANDLE.pack(0))
            return
        if program is None:
            graph = parsed(bytes(buffers.raw(frame.tensors[0])))
            if graph.id != frame.body:
                raise RefusedError("GRAPH: the graph has another hash than was named")
            program = Program(graph, self.store.device)
            program.check(self.bounds.session_bytes)
        if len(hosted.graphs) >= MOST_GRAPHS:
            raise RefusedError(f"a connection may have {MOST_GRAPHS} graphs")
        self._programs[frame.body] = program
        self._handles += 1
        hosted.graphs[self._handles] = Loaded(program)
        largest = max(_input_bytes(one.program.graph) for one in hosted.graphs.values())
        connection.wire.buffer_limits[Op.EXEC] = min(largest, self.bounds.session_bytes)
        connection.wire.send(Op.GRAPH, body=HANDLE.pack(self._handles))

    def _use_weights(self, connection: "Connection", hosted: Hosted, frame: Frame) -> None:
        """Answers whether the weights are here; takes them where they are not, or are a graph's alone."""
        loaded = self._loaded(hosted, frame)
        content, size = _unpacked(WEIGHTS, frame.body, "WEIGHTS")
        if frame.tensors:
            self._take_weights(connection, hosted, frame, content)
            return
        is_here = content in self._weights
        if content == PRIVATE:
            if loaded.private_bytes == 0:
                self.store.reserve(size)
                loaded.private_bytes = size
        elif is_here:
            self._bind(hosted, loaded, content)
        else:
            self._expect(hosted, (content, size))
        if not is_here:
            limit = max(size, *(one.private_bytes for one in hosted.graphs.values()))
            connection.wire.buffer_limits[Op.WEIGHTS] = buffers.padded(limit) + MOST_DESCRIPTION_BYTES
        connection.wire.send(Op.WEIGHTS, frame.session, bytes([is_here]))

    def _take_weights(self, connection: "Connection", hosted: Hosted, frame: Frame, content: bytes) -> None:
        loaded = self._loaded(hosted, frame)
        if len(frame.tensors) != 2 or any(one.dtype != torch.uint8 or one.ndim != 1 for one in frame.tensors):
            raise RefusedError("WEIGHTS: takes a description and a buffer of bytes")
        weights = received(*frame.tensors)
        if content == PRIVATE:
            if weights.bytes > loaded.private_bytes:
                raise RefusedError(f"WEIGHTS: {weights.bytes} bytes, of {loaded.private_bytes} that were announced")
            loaded.use(weights.to(self.store.device))
            return
        if hosted.expected != (content, weights.bytes):
            raise RefusedError("WEIGHTS: these were not announced")
        if weights.content != content:
            raise RefusedError("WEIGHTS: they hash to another content than was named")
        if content in self._weights:  # another connection was faster
            self._expect(hosted, None)
        else:
            self._weights[content] = (weights.to(self.store.device), 0)
            hosted.expected = None  # what was reserved is theirs now
        self._bind(hosted, loaded, content)
        connection.wire.send(Op.WEIGHTS, frame.session, b"\x01")

    def _expect(self, hosted: Hosted, expected: tuple[bytes, int] | None) -> None:
        """Reserves memory for weights that are to come, in place of those that have not."""
        if hosted.expected is not None:
            self.store.unreserve(hosted.expected[1])
            hosted.expected = None
        if expected is not None:
            self.store.reserve(expected[1])
            hosted.expected = expected

    def _bind(self, hosted: Hosted, loaded: Loaded, content: bytes) -> None:
        weights, users = self._weights[content]
        if content not in hosted.contents:
            self._weights[content] = (weights, users + 1)
            hosted.contents.add(content)
        loaded.use(weights)

    def _loaded(self, hosted: Hosted, frame: Frame) -> Loaded:
        if frame.session not in hosted.graphs:
            raise RefusedError(f"foreign handle: graph {frame.session} is not one of this connection")
        return hosted.graphs[frame.session]

    # Runs

    def _run(self, hosted: Hosted, frame: Frame) -> Run:
        """The run that an EXEC asks for."""
        loaded = self._loaded(hosted, frame)
        graph = loaded.program.graph
        if len(frame.body) < EXEC.size:
            raise RefusedError("EXEC: the body is malformed")
        number, inputs, outputs = EXEC.unpack_from(frame.body)
        places = (
            list(PLACE.iter_unpack(frame.body[EXEC.size :])) if (len(frame.body) - EXEC.size) % PLACE.size == 0 else []
        )
        if (inputs, outputs) != (len(graph.inputs), len(graph.outputs)) or len(places) != inputs + outputs:
            raise RefusedError(f"EXEC: the graph has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
        size = sum(one.nbytes for one in frame.tensors)
        if len(hosted.runs) >= MOST_WAITING or hosted.bytes + size > self.bounds.session_bytes:
            raise RefusedError(f"EXEC: {len(hosted.runs)} runs with {hosted.bytes} bytes wait already")
        sent = [kind for kind, _ in places[:inputs]].count(Source.SENT)
        if sent != len(frame.tensors):
            raise RefusedError(f"EXEC: {len(frame.tensors)} tensors came, for {sent} inputs")
        hosted.waiting_bytes += size
        return Run(number, loaded, places[:inputs], places[inputs:], list(frame.tensors))

    @property
    def is_ready(self) -> bool:
        """Whether a run can be done now."""
        return bool(self._turns) and any(map(self._can_go, self._turns))

    def _can_go(self, connection: "Connection") -> bool:
        hosted = self._hosted[connection]
        is_behind = connection.wire.has_unsent or (hosted.peer is not None and hosted.peer.wire.has_unsent)
        return hosted.is_ready() and not is_behind

    def _waken(self, connection: "Connection", hosted: Hosted) -> None:
        if hosted.is_ready() and connection not in self._turns:
            self._turns.append(connection)

    def next(self) -> "Connection | None":
        """The connection whose turn it is."""
        for _ in range(len(self._turns)):
            connection = self._turns.popleft()
            if self._can_go(connection):
                return connection
            self._turns.append(connection)
        return None

    def step(self, connection: "Connection") -> int:
        """Does the connection's first run; its number. Raises RefusedError for inputs that do not fit."""
        hosted = self._hosted[connection]
        run = hosted.runs.popleft()
        hosted.waiting_bytes -= sum(one.nbytes for one in run.sent)
        try:
            self._do(connection, hosted, run)
        except RefusedError as error:
            raise RefusedError(f"run {run.number}: {error}") from None
        finally:
            self._waken(connection, hosted)
        return run.number

    def _do(self, connection: "Connection", hosted: Hosted, run: Run) -> None:
        graph, sent = run.loaded.program.graph, iter(run.sent)
        if run.loaded.weights is None and graph.weights:
            raise RefusedError("the graph has no weights yet")
        inputs = {}
        for name, (kind, number) in zip(sorted(graph.inputs), run.inputs, strict=True):
            inputs[name] = self._input(hosted, kind, number, sent).to(self.store.device)
            one, found = graph.inputs[name], inputs[name]
            if (str(found.dtype).removeprefix("torch."), list(found.shape)) != (one.dtype, one.shape):
                raise RefusedError(f"{name[:80]} is {found.dtype} {list(found.shape)}, not {one.dtype} {one.shape}")
        outputs = run.loaded.program.run(run.loaded.prepared, inputs)
        returned: list[Tensor] = []
        for name, (kind, number) in zip(sorted(outputs), run.outputs, strict=True):
            self._give(hosted, kind, number, outputs[name], returned)
        if returned:
            connection.wire.send(Op.EXEC, run.number, tensors=returned)

    def _input(self, hosted: Hosted, kind: int, number: int, sent: Iterator[Tensor]) -> Tensor:
        if kind == Source.SENT:
            return next(sent)
        held = hosted.arrived if kind == Source.ARRIVED else hosted.kept
        if number not in held:
            raise RefusedError(f"nothing is held as {number}")
        return held.pop(number) if kind == Source.ARRIVED else held[number]

    def _give(self, hosted: Hosted, kind: int, number: int, value: Tensor, returned: list[Tensor]) -> None:
        match kind:
            case Way.DROP:
                pass
            case Way.RETURN:
                returned.append(value)
            case Way.KEEP | Way.LOCAL:
                held = hosted.kept if kind == Way.KEEP else hosted.arrived
                held.pop(number, None)
                if hosted.bytes + value.nbytes > self.bounds.session_bytes:
                    raise RefusedError(f"{hosted.bytes} bytes are kept, of at most {self.bounds.session_bytes}")
                held[number] = value
            case Way.SEND if hosted.peer is not None:
                self.peers.send(hosted, number, value)
            case _:
                raise RefusedError(f"an output cannot go by way {kind}")

    def _arrive(self, frame: Frame) -> None:
        """Keeps a value from another worker for the run that waits for it."""
        inbox, number = _unpacked(PEER_SEND, frame.body, "PEER_SEND")
        owner = self._inboxes.get(inbox)
        if owner is None or len(frame.tensors) != 1:
            raise RefusedError("PEER_SEND: no such inbox, or not one value")
        hosted = self._hosted[owner]
        if hosted.bytes + frame.tensors[0].nbytes > self.bounds.session_bytes:
            raise RefusedError(f"PEER_SEND: {hosted.bytes} bytes wait already")
        hosted.arrived[number] = frame.tensors[0]
        self._waken(owner, hosted)

    def forget(self, connection: "Connection") -> None:
        """Frees all that is a connection's."""
        hosted = self._hosted.pop(connection, None)
        if hosted is None:
            return
        if connection in self._turns:
            self._turns.remove(connection)
        self._expect(hosted, None)
        for loaded in hosted.graphs.values():
            self.store.unreserve(loaded.private_bytes)
        for content in hosted.contents:
            weights, users = self._weights.pop(content)
            if users > 1:
                self._weights[content] = (weights, users - 1)
            else:
                self.store.unreserve(weights.bytes)
        used = {id(loaded.program) for other in self._hosted.values() for loaded in other.graphs.values()}
        self._programs = {name: one for name, one in self._programs.items() if id(one) in used}
        if hosted.inbox is not None:
            del self._inboxes[hosted.inbox]
        self.peers.drop(hosted)


def _input_bytes(graph: Graph) -> int:
    return sum(buffers.padded(size_of(one)) for one in graph.inputs.values())


def _unpacked(form: struct.Struct, body: bytes, op: str) -> tuple[bytes, int]:
    if len(body) != form.size:
        raise RefusedError(f"{op}: the body is malformed")
    first, second = form.unpack(body)
    return first, second
