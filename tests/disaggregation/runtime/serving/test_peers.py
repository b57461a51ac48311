"""A worker outlives the loss of another that it sends values to, and its client is told which one was lost."""

import select
import signal
import socket
from contextlib import contextmanager

import pytest
import torch

from disaggregation.runtime.pairs import SECRET
from disaggregation.runtime.workers import forked_worker
from plumbline.disaggregation.runtime.models.weights import RefusedError
from plumbline.disaggregation.runtime.serving.connection import Bounds, Connection
from plumbline.disaggregation.runtime.serving.hosted import TOKEN_BYTES, Hosted
from plumbline.disaggregation.runtime.serving.peers import Peers
from plumbline.disaggregation.runtime.transport.protocol import Limits, Op
from plumbline.disaggregation.runtime.transport.remote import Remote, RequestRefusedError
from plumbline.disaggregation.runtime.transport.wire import Frame


@contextmanager
def connected():
    """A worker to send values to, the connections to it, what a client has here, and the client's end."""
    here, client = socket.socketpair()
    connection, hosted = Connection(here, "a client", SECRET, Limits(), Bounds()), Hosted()

    def tell(connection, session, kind, error, op):
        connection.wire.send(Op.ERR, session, f"{kind}: {error}".encode())

    with forked_worker() as other, here, client, select.epoll() as epoll:
        peers = Peers([other.address], SECRET, Limits(), epoll, tell)
        peers.connect(connection, hosted, Frame(Op.PEER, 0, 0, bytes(TOKEN_BYTES) + other.address.encode()))
        client.recv(1000)
        yield other, peers, hosted, client


def test_a_value_for_a_worker_that_is_lost_is_refused_with_its_address():
    with connected() as (other, peers, hosted, _):
        number = hosted.peer.wire.socket.fileno()
        hosted.peer.wire.socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises(RefusedError, match=f"peer {other.address}: the connection broke"):
            peers.send(hosted, 1, torch.zeros(3))
        assert hosted.peer is None
        assert number not in peers


@pytest.mark.parametrize("is_there", [True, False])
def test_a_client_is_told_of_the_loss_if_it_is_still_there(is_there):
    with connected() as (other, peers, hosted, client):
        number = hosted.peer.wire.socket.fileno()
        if not is_there:
            client.close()
        other.send(signal.SIGKILL)
        assert select.select([number], [], [], 10)[0]
        peers.serve(number, select.EPOLLIN)
        assert hosted.peer is None
        if is_there:
            assert f"fault: peer {other.address}: ".encode() in client.recv(1000)


def test_a_worker_gives_up_a_silent_peer_before_its_clients_give_it_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = f"127.0.0.1:{silent.getsockname()[1]}"
        with forked_worker(bounds=Bounds(peers=(peer,)), stall_seconds=2.0) as worker:
            remote = Remote(worker.address, SECRET, reply_seconds=20.0)
            with pytest.raises(RequestRefusedError, match=rf"PEER: worker {peer}: .* silent for 2 s"):
                remote.ask(Op.PEER, body=bytes(TOKEN_BYTES) + peer.encode())
