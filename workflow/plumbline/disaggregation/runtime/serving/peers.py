"""Connections of a worker to other workers: each is one client's, whose runs send values through it."""

import select
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.models.weights import RefusedError
from plumbline.disaggregation.runtime.serving.hosted import PEER_SEND, TOKEN_BYTES, Hosted
from plumbline.disaggregation.runtime.transport.protocol import Limits, Op, WireError, json_object
from plumbline.disaggregation.runtime.transport.remote import Remote
from plumbline.disaggregation.runtime.transport.wire import Frame

if TYPE_CHECKING:
    from plumbline.disaggregation.runtime.serving.connection import Connection


class Peers:
    """The other workers that this one sends values to."""

    def __init__(
        self, allowed: Collection[str], secret: bytes, limits: Limits, epoll: select.epoll, tell: Callable[..., None]
    ) -> None:
        """allowed: addresses that clients may name. epoll: that of the worker, which hands events to `serve`. tell:
        sends an error to a client.
        """
        self._allowed, self._secret, self._limits = allowed, secret, limits
        self._epoll, self._tell = epoll, tell
        self._open: dict[int, tuple[Connection, Hosted, Remote]] = {}
        """File descriptor -> whose connection it is."""

    def __contains__(self, number: int) -> bool:
        """Whether a file descriptor is that of a connection to another worker."""
        return number in self._open

    def connect(self, connection: "Connection", hosted: Hosted, frame: Frame) -> None:
        """Connects to another worker, which must be one that this worker was told of. Raises RefusedError."""
        inbox, address = frame.body[:TOKEN_BYTES], frame.body[TOKEN_BYTES:].decode(errors="replace")
        if address not in self._allowed:
            raise RefusedError(f"PEER: {address} is not a peer of this worker")
        if hosted.peer is not None:
            raise RefusedError("PEER: the connection has a peer already")
        try:
            # all sessions here wait meanwhile, and two workers that connect to each other would wait for each other
            hosted.peer = Remote(address, self._secret, self._limits, self._limits.stall_seconds)
        except UserError as error:
            raise RefusedError(f"PEER: {error}") from None
        hosted.peer_inbox = inbox
        number = hosted.peer.wire.socket.fileno()
        self._open[number] = (connection, hosted, hosted.peer)
        self._epoll.register(number, select.EPOLLIN)
        connection.wire.send(Op.PEER)

    def send(self, hosted: Hosted, number: int, value: Tensor) -> None:
        """Sends a value into the inbox that the client named. Raises RefusedError when the other worker is lost."""
        peer = hosted.peer
        assert peer is not None
        try:
            peer.wire.send(Op.PEER_SEND, 0, PEER_SEND.pack(hosted.peer_inbox, number), [value])
            self._watch(peer)
        except WireError as error:
            self.drop(hosted)
            raise RefusedError(f"peer {peer.address}: {error}") from None

    def serve(self, number: int, events: int) -> None:
        """Sends what is unsent, and tells the client of an error that the other worker reports, or of its loss."""
        connection, hosted, peer = self._open[number]
        try:
            if events & select.EPOLLOUT:
                peer.wire.flush()
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                peer.wire.fill()
                while frame := peer.wire.frame():
                    told = json_object(frame.body).get("message") if frame.op is Op.ERR else frame.op.name
                    self._report(connection, "refused", peer, told)
            self._watch(peer)
        except WireError as error:
            self.drop(hosted)
            self._report(connection, "fault", peer, error)

    def check(self) -> None:
        """Drops those whose machine is gone, of which no event tells, and reports it to their clients."""
        for connection, hosted, peer in list(self._open.values()):
            try:
                peer.wire.check_alive()
            except WireError as error:
                self.drop(hosted)
                self._report(connection, "fault", peer, error)

    def drop(self, hosted: Hosted) -> None:
        """Ends a client's connection to another worker, if it has one."""
        if hosted.peer is not None:
            number = hosted.peer.wire.socket.fileno()
            self._epoll.unregister(number)
            del self._open[number]
            hosted.peer.close()
            hosted.peer = None

    def _report(self, connection: "Connection", kind: str, peer: Remote, reason: object) -> None:
        with suppress(WireError):  # the client may be gone as well
            self._tell(connection, 0, kind, RefusedError(f"peer {peer.address}: {reason}"), Op.EXEC.name)

    def _watch(self, peer: Remote) -> None:
        """Waits for the peer to read what is unsent, where something is."""
        wanted = select.EPOLLIN | (select.EPOLLOUT if peer.wire.has_unsent else 0)
        self._epoll.modify(peer.wire.socket.fileno(), wanted)
