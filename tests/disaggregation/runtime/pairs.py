"""Two ends of a connection in one process, with the keys that a handshake would have given them."""

import hashlib
import socket

from plumbline.disaggregation.runtime.transport.keys import connection_keys
from plumbline.disaggregation.runtime.transport.protocol import Limits
from plumbline.disaggregation.runtime.transport.wire import Wire

SECRET = bytes(range(32))
KEYS = connection_keys(SECRET, b"c" * 32, b"w" * 32)


def as_client(wire):
    wire.use_keys(KEYS.to_worker, KEYS.to_client)
    return wire


def as_worker(wire):
    wire.use_keys(KEYS.to_client, KEYS.to_worker)
    return wire


def unix_pair(**limits):
    """(client, worker) over a socket pair."""
    first, second = socket.socketpair()
    return as_client(Wire(first, Limits(**limits))), as_worker(Wire(second, Limits(**limits)))


def tcp_pair(listening=None, **limits):
    """(client, worker) over loopback, or wherever a socket listens."""
    with listening or socket.create_server(("127.0.0.1", 0)) as listening:
        first = socket.create_connection(listening.getsockname())
        second, _ = listening.accept()
    return as_client(Wire(first, Limits(**limits))), as_worker(Wire(second, Limits(**limits)))


def mac(key, data):
    """The MAC of a frame, made independently of the runtime's."""
    return hashlib.blake2b(data, key=key, digest_size=16).digest()


def sent_bytes(*frames):
    """What a client with fresh keys puts on the wire for `send` with each of these arguments."""
    client, worker = unix_pair()
    found = []
    for frame in frames:
        client.send(**frame)
        data = b""
        while client.has_unsent or not data:
            client.flush()
            data += worker.socket.recv(1 << 20)
        found.append(data)
    client.socket.close()
    worker.socket.close()
    return found
