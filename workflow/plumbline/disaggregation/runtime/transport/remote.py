"""A client's connection to a worker: one request at a time, and what it has cost."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.transport.address import parse_address
from plumbline.disaggregation.runtime.transport.handshake import greet
from plumbline.disaggregation.runtime.transport.protocol import Limits, Op, PeerGoneError, WireError, json_object
from plumbline.disaggregation.runtime.transport.wire import Frame, Wire

CONNECT_SECONDS = 10.0


class RequestRefusedError(UserError):
    """The worker did not carry out a request, and says why."""


class ClosedError(UserError):
    """This side has closed the connection itself."""


class Remote:
    """A connection to the worker at `address`, HOST:PORT."""

    def __init__(
        self,
        address: str,
        secret: bytes,
        limits: Limits | None = None,
        reply_seconds: float = 300.0,
        hello_seconds: float | None = None,
    ) -> None:
        """reply_seconds: how long a worker may compute before it counts as lost. hello_seconds: the same of its first
        answer; None: as long, because it may be building a model for another client.

        Raises UserError when it cannot be reached, holds another key, or speaks another version.
        """
        self.address = address
        self.reply_seconds = reply_seconds
        self._is_closed = False
        try:
            connection = socket.create_connection(parse_address(address), timeout=CONNECT_SECONDS)
        except OSError as error:
            raise UserError(
                f"worker {address}: cannot be reached ({error.strerror or error}); "
                f"start it with `plumbline worker --listen {address} --key-file FILE`"
            ) from None
        self.wire = Wire(connection, limits or Limits())
        try:
            greet(self.wire, secret, reply_seconds if hello_seconds is None else hello_seconds)
            self.stats()  # a frame under this connection's key: the worker knows now that this side holds the secret
        except WireError as error:
            self.cut_off()
            raise UserError(f"worker {address}: {error}") from None

    def ask(self, op: Op, session: int = 0, body: bytes = b"", tensors: Sequence[Tensor] = (), flags: int = 0) -> Frame:
        """The answer to a request.

        Raises RequestRefusedError, PeerGoneError when the worker is lost, and ClosedError after `close`.
        """
        with self._closing_if_cut_off():
            self._send(op, session, body, tensors, flags)
            return self._next(op)

    def answer(self, op: Op) -> Frame:
        """The next frame, which must answer `op`. Raises as `ask` does."""
        with self._closing_if_cut_off():
            return self._next(op)

    def free(self, session: int) -> None:
        """Ends a session, also in the middle of a stream, whose remaining frames are passed over."""
        with self._closing_if_cut_off():
            self._send(Op.FREE, session)
            while (frame := self.wire.receive(self.reply_seconds)).op is not Op.FREE:
                if frame.op is Op.ERR and json_object(frame.body).get("op") == Op.FREE.name:
                    return  # a fault had ended the session already

    def _send(
        self, op: Op, session: int = 0, body: bytes = b"", tensors: Sequence[Tensor] = (), flags: int = 0
    ) -> None:
        self.check_open()
        self.wire.meter.round_trips += 1
        self.wire.send_all(op, session, body, tensors, flags, seconds=self.reply_seconds)

    def _next(self, op: Op) -> Frame:
        frame = self.wire.receive(self.reply_seconds)
        if frame.op is Op.ERR:
            told = json_object(frame.body)
            raise RequestRefusedError(f"worker {self.address}: {told.get('message')}")
        if frame.op is not op:
            raise PeerGoneError(f"answered {frame.op.name} to {op.name}")
        return frame

    @contextmanager
    def _closing_if_cut_off(self) -> Iterator[None]:
        """Closes the connection when a request ends without its answer: the next one would be given that answer."""
        try:
            yield
        except RequestRefusedError:
            raise
        except BaseException as error:
            if self._is_closed and isinstance(error, WireError):  # closed while it waited
                raise self._closed() from None
            self.cut_off()
            raise

    def stats(self) -> dict[str, object]:
        """The worker's counters, and those of this connection's sessions."""
        return json_object(self.ask(Op.STATS).body)

    def check_open(self) -> None:
        """Raises ClosedError after `close`, and PeerGoneError when the connection ended in another way."""
        if self._is_closed:
            raise self._closed()
        if self.wire.socket.fileno() < 0:
            raise PeerGoneError("its connection had already ended; connect again")

    def _closed(self) -> ClosedError:
        return ClosedError(f"worker {self.address}: the client has closed its connection; connect again")

    def close(self) -> None:
        """Ends the connection, which is not used any more: the worker frees all that is this connection's."""
        self._is_closed = True
        self.wire.socket.close()

    def cut_off(self) -> None:
        """Ends the connection because it is of no use: the worker is lost, or owes an answer that nobody waits for."""
        self.wire.socket.close()
