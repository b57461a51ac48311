"""The worker: one thread that reads requests as they come, and computes one step of one session at a time.

Sessions take turns, step by step, so that none waits for more steps than there are others. What a peer does wrong is
logged with its reason and ends at most its own connection.
"""

import logging
import select
import socket
import time
from contextlib import suppress
from typing import Any

from plumbline.core.errors import one_line
from plumbline.core.run.device import memory_error, memory_errors
from plumbline.disaggregation.runtime.models.weights import RefusedError, Store
from plumbline.disaggregation.runtime.serving import programs, requests
from plumbline.disaggregation.runtime.serving.connection import Bounds, Budget, Connection, State
from plumbline.disaggregation.runtime.serving.programs import Programs
from plumbline.disaggregation.runtime.serving.requests import Task
from plumbline.disaggregation.runtime.serving.turns import Turns
from plumbline.disaggregation.runtime.transport.handshake import answer_hello
from plumbline.disaggregation.runtime.transport.protocol import (
    ON_MODEL,
    Limits,
    Op,
    PeerGoneError,
    WireError,
    json_bytes,
)
from plumbline.disaggregation.runtime.transport.wire import Frame

log = logging.getLogger("plumbline")

MESSAGE_BYTES = 600
"""Of an error's message: JSON may take six times as many."""
TAKES_LONG = (Op.LOAD, Op.GRAPH, Op.WEIGHTS)
"""Requests that hold all sessions up: tokens that wait for each other are sent before."""
LONGEST_SLEEP = 0.5
"""Seconds after which the worker looks whether peers have stalled, and whether it is to stop."""


class Worker:
    """Serves the connections to `listening`, a socket that listens."""

    def __init__(
        self,
        listening: socket.socket,
        secret: bytes,
        store: Store,
        limits: Limits | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        listening.setblocking(False)
        self.listening = listening
        self.store = store
        self.limits = limits or Limits()
        self.bounds = bounds or Bounds()
        self.budget = Budget(self.bounds.all_sessions_bytes)
        self.is_stopping = False
        self.turns = Turns()
        self.refused = 0
        self.connections: dict[int, Connection] = {}
        self._secret = secret
        self._handles = 0
        self._checked = time.monotonic()
        self._epoll = select.epoll()
        self._epoll.register(listening, select.EPOLLIN)
        self.programs = Programs(store, self.bounds, secret, self.limits, self._epoll, self._tell)

    def run(self) -> None:
        """Serves until `is_stopping` is set; then ends every connection."""
        try:
            while not self.is_stopping:
                self.turn()
        finally:
            for connection in list(self.connections.values()):
                self._drop(connection)
            self._epoll.close()
            self.listening.close()

    def turn(self, sleep: float = LONGEST_SLEEP) -> None:
        """Reads what has come, computes one step if one is ready, and looks after peers that have stalled."""
        for number, events in self._events(0.0 if self.turns.is_ready or self.programs.is_ready else sleep):
            connection = self.connections.get(number)
            if number == self.listening.fileno():
                self._accept()
            elif connection is not None:
                self._serve(connection, events)
            elif number in self.programs.peers:
                self.programs.peers.serve(number, events)
        if self.turns.is_ready:
            self._step()
        if (connection := self.programs.next()) is not None:
            self._run(connection)
        now = time.monotonic()
        if now - self._checked > min(LONGEST_SLEEP, self.limits.stall_seconds / 4):
            self._check_stalls(now)

    # Connections

    def _events(self, sleep: float) -> list[tuple[int, int]]:
        """What the system reports: spins first, as the limits say, then sleeps."""
        if sleep and self.limits.spin_seconds:
            until = time.perf_counter() + self.limits.spin_seconds
            while time.perf_counter() < until:
                if events := self._epoll.poll(0):
                    return events
        return self._epoll.poll(sleep)

    def _accept(self) -> None:
        try:
            accepted, address = self.listening.accept()
        except OSError:  # gone before it was accepted, or no file descriptor is left
            return
        peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "a local peer"
        try:
            self.adopt(accepted, peer)
        except OSError:  # it ended while it was set up
            accepted.close()

    def adopt(self, accepted: socket.socket, peer: str) -> None:
        """Serves a connection. A full worker ends the oldest that has not shown the key, or refuses this one."""
        if len(self.connections) >= self.bounds.connections:
            strangers = [one for one in self.connections.values() if one.state is not State.OPEN]
            if not strangers:
                self._log_refusal(peer, f"{len(self.connections)} connections are open already")
                accepted.close()
                return
            oldest = min(strangers, key=lambda one: one.began)
            self._refuse(oldest, "makes room for another connection", tells=oldest.state is not State.NEW)
        connection = Connection(accepted, peer, self._secret, self.limits, self.bounds)
        self.connections[accepted.fileno()] = connection
        self._epoll.register(accepted, select.EPOLLIN)

    def _serve(self, connection: Connection, events: int) -> None:
        wire = connection.wire
        try:
            if events & select.EPOLLOUT:
                wire.flush()
            self._read(connection)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not wire.has_unsent:
                wire.fill()
                self._read(connection)
        except PeerGoneError as error:
            log.info("%s: %s", connection.peer, error)
            self._drop(connection)
        except WireError as error:
            self._refuse(connection, str(error))
        except Exception as error:
            log.exception("%s: while reading", connection.peer)
            self._fault(connection, 0, "", error)
        else:
            self._watch(connection)

    def _read(self, connection: Connection) -> None:
        """Takes the frames that have arrived, as long as the peer reads its answers. Raises WireError."""
        while not connection.wire.has_unsent and (frame := connection.wire.frame()):
            if connection.state is State.NEW:
                answer_hello(connection.wire, frame, self._secret)
                connection.state = State.GREETED
                continue
            connection.state = State.OPEN
            try:
                if frame.op in TAKES_LONG:
                    self.turns.flush_all()
                self._handle(connection, frame)
            except RefusedError as error:
                self._log_refusal(connection.peer, str(error))
                self._tell(connection, frame.session, "refused", error, frame.op.name)
            except WireError:
                raise
            except Exception as error:
                log.exception("%s: %s", connection.peer, frame.op.name)
                self._tell(connection, frame.session, "fault", error, frame.op.name)

    def _watch(self, connection: Connection) -> None:
        """Waits for the peer to read what is unsent, or for its next frame."""
        is_behind = connection.wire.has_unsent
        if is_behind is not connection.is_behind:
            connection.is_behind = is_behind
            self._epoll.modify(connection.wire.socket, select.EPOLLOUT if is_behind else select.EPOLLIN)
        while connection.parked and not is_behind:
            task = connection.parked.pop()
            if task.handle in connection.sessions:
                self.turns.add(connection, task)

    def _check_stalls(self, now: float) -> None:
        """Refuses peers that have stalled, and drops those whose machine is gone.

        While this side computed or built a model, they had no chance to go on.
        """
        busy = max(0.0, now - self._checked - LONGEST_SLEEP)
        self._checked = now
        for connection in list(self.connections.values()):
            connection.began += busy
            connection.wire.excuse(busy)
            try:
                connection.wire.check_stall(now)
                if connection.state is not State.OPEN and now - connection.began > self.limits.stall_seconds:
                    raise WireError("stalled peer: has not shown that it holds the key")
            except PeerGoneError as error:
                log.info("%s: %s", connection.peer, error)
                self._drop(connection)
            except WireError as error:
                self._refuse(connection, str(error), tells=connection.state is not State.NEW)
        self.programs.peers.check()

    def _log_refusal(self, peer: str, reason: str) -> None:
        self.refused += 1
        log.warning("refused %s: %s", peer, reason)

    def _refuse(self, connection: Connection, reason: str, *, tells: bool = True) -> None:
        """Ends a connection whose peer broke the protocol.

        tells: whether the peer is told why. Before the handshake it takes what it is told for another key's.
        """
        self._log_refusal(connection.peer, reason)
        if tells:
            with suppress(WireError):
                self._tell(connection, 0, "refused", WireError(reason))
        self._drop(connection)

    def _fault(self, connection: Connection, session: int, op: str, error: Exception) -> None:
        """Ends a connection that an error of this side's has left in an unknown state."""
        with suppress(WireError):
            self._tell(connection, session, "fault", error, op)
        self._drop(connection)

    def _tell(self, connection: Connection, session: int, kind: str, error: BaseException, op: str = "") -> None:
        message = one_line(error).encode()[:MESSAGE_BYTES].decode(errors="ignore")
        connection.wire.send(Op.ERR, session, json_bytes({"kind": kind, "message": message, "op": op}))

    def _drop(self, connection: Connection) -> None:
        """Ends a connection, and frees its sessions and models."""
        number = connection.wire.socket.fileno()
        self._epoll.unregister(number)
        del self.connections[number]
        connection.wire.socket.close()
        for handle in list(connection.sessions):
            self._free(connection, handle)
        for held in connection.models.values():
            self.store.release(held)
        requests.end_upload(connection, self.store)
        self.programs.forget(connection)

    # Requests

    def _handle(self, connection: Connection, frame: Frame) -> None:
        """Answers a request, or queues it. Raises RefusedError."""
        wire, op, handle = connection.wire, frame.op, frame.session
        match op:
            case Op.DECODE | Op.STREAM:
                self._queue_steps(connection, frame)
            case Op.PREFILL:
                task = requests.prefill(frame, connection, self.bounds, self.budget, self.store.device)
                task.handle = self._new_handle()
                connection.sessions[task.handle] = task.session
                self.turns.add(connection, task)
            case Op.LOAD:
                if len(connection.models) >= self.bounds.models:
                    raise RefusedError(f"a connection may have {self.bounds.models} models; free one")
                found = requests.load(frame, connection, self.store)
                answer: dict[str, Any] = {"upload": True}
                if found is not None:
                    number = self._new_handle()
                    connection.models[number], answer = found[0], {"model": number, **found[1]}
                wire.send(op, body=json_bytes(answer))
            case Op.PUT:
                requests.put(frame, connection)
                wire.send(op)
            case Op.FREE:
                if frame.flags & ON_MODEL:
                    self.store.release(connection.unused_model(handle))
                    del connection.models[handle]
                else:
                    connection.session(handle)
                    self._free(connection, handle)
                wire.send(op, handle)
            case Op.STATS:
                wire.send(op, body=json_bytes(self.stats(connection)))
            case _ if op in programs.OPS:
                self.programs.handle(connection, frame)
            case _:
                raise WireError(f"{op.name} is not a request")

    def _queue_steps(self, connection: Connection, frame: Frame) -> None:
        session = connection.session(frame.session)
        if self.turns.is_busy(frame.session):
            raise RefusedError(f"session {frame.session} is busy with its last request")
        tokens, steps = requests.steps(frame, session, self.bounds, self.budget, self.store.device)
        self.turns.add(connection, Task(frame.op, frame.session, session, tokens, steps))

    def _new_handle(self) -> int:
        """A number that no session or model of this worker has had."""
        self._handles += 1
        return self._handles

    def _free(self, connection: Connection, handle: int) -> None:
        self.budget.release(connection.sessions.pop(handle))
        connection.expect_states()
        self.turns.drop(connection, handle)

    def stats(self, connection: Connection) -> dict[str, Any]:
        """Counters of the worker, and the models and sessions of one connection: content -> its users, and so on."""
        meter = connection.wire.meter
        return {
            "connections": len(self.connections),
            "steps": self.turns.steps,
            "refused": self.refused,
            "weights": {held.content: held.users for held in connection.models.values()},
            "weights_bytes": self.store.bytes,
            "sessions_bytes": self.budget.bytes,
            "received_bytes": meter.received_bytes,
            "sent_bytes": meter.sent_bytes,
            "spin_seconds": self.limits.spin_seconds,
            "longest_wait_steps": connection.longest_wait_steps,
            "sessions": {
                str(handle): {"epoch": session.epoch, "state_bytes": session.state_bytes}
                for handle, session in connection.sessions.items()
            },
        }

    # Steps

    def _step(self) -> None:
        """One step of the session whose turn it is."""
        if (ready := self.turns.next()) is None:
            return
        (connection, task), session = ready, ready[1].session
        try:
            try:
                answer = session.prefill() if task.tokens is None else session.decode(task.tokens)
            except Exception as error:
                log.exception("%s: session %d", connection.peer, task.handle)
                self.turns.flush(connection, task)
                self._free(connection, task.handle)
                self._tell(connection, task.handle, "fault", memory_error(error) or error, task.op.name)
                return
            is_alone = not (self.turns.is_ready or self.programs.is_ready)
            self.turns.answer(connection, task, answer, is_alone=is_alone)
        except WireError as error:
            log.info("%s: %s", connection.peer, error)
            self._drop(connection)
        except Exception as error:
            log.exception("%s: session %d", connection.peer, task.handle)
            self._fault(connection, task.handle, task.op.name, error)
        else:
            self._watch(connection)

    def _run(self, connection: Connection) -> None:
        """One run of a captured graph."""
        self.turns.steps += 1
        try:
            with memory_errors():
                self.programs.step(connection)
        except RefusedError as error:
            self._log_refusal(connection.peer, str(error))
            with suppress(PeerGoneError):  # its next read finds out
                self._tell(connection, 0, "refused", error, Op.EXEC.name)
        except WireError as error:
            log.info("%s: %s", connection.peer, error)
            self._drop(connection)
        except Exception as error:
            log.exception("%s: while running a graph", connection.peer)
            self._fault(connection, 0, Op.EXEC.name, error)
        else:
            self._watch(connection)
