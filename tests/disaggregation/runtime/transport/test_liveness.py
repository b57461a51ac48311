"""A peer whose machine is gone is noticed also while data is under way; one that only computes is waited for."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest
import torch

from disaggregation.runtime.hosts import another_host
from disaggregation.runtime.pairs import SECRET, tcp_pair
from disaggregation.runtime.some_graphs import Layers, captured
from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.deployment import Deployment
from plumbline.disaggregation.runtime.models.weights import Store
from plumbline.disaggregation.runtime.planning.schedule import Policy, schedule
from plumbline.disaggregation.runtime.serving.connection import Bounds
from plumbline.disaggregation.runtime.transport.protocol import Limits, Op, PeerGoneError
from plumbline.disaggregation.runtime.transport.remote import Remote, RequestRefusedError
from plumbline.disaggregation.runtime.worker import Worker

KEPT_ALIVE = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
IMAGES = {"image": torch.randn(6, 8, generator=torch.Generator().manual_seed(0))}
LARGE = [torch.zeros(10_000_000)]
LONG = 120.0
"""Seconds that a side would wait for an answer: far more than a machine that is gone takes to be noticed."""
GONE = "the peer's machine has not answered for 1 s"


def nearby():
    return socket.create_server(("127.0.0.1", 0))


@pytest.fixture
def host():
    with another_host() as host:
        yield host


def test_the_kernel_ends_a_connection_whose_peer_is_silent_as_soon_as_the_limits_say():
    for end in tcp_pair(stall_seconds=7.5):
        told = {name: end.socket.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in KEPT_ALIVE}
        assert end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert told["TCP_KEEPIDLE"] == 8
        assert told["TCP_KEEPINTVL"] * told["TCP_KEEPCNT"] <= 8


def test_a_client_that_waits_for_an_answer_notices_that_the_request_never_arrived(host):
    client, _ = tcp_pair(host.listening(), stall_seconds=0.5)
    host.pull_the_cable()
    client.send(Op.STATS)
    with pytest.raises(PeerGoneError, match=GONE):
        client.receive(LONG)


def test_a_client_whose_request_fills_the_buffers_notices_that_the_machine_is_gone(host):
    client, _ = tcp_pair(host.listening(), stall_seconds=0.5)
    threading.Timer(0.5, host.pull_the_cable).start()
    with pytest.raises(PeerGoneError, match=GONE):
        client.send_all(Op.PUT, tensors=LARGE, seconds=LONG)


@contextmanager
def serving(listening, **bounds):
    """A worker at that socket, in a thread of its own, and its address."""
    limits = Limits(stall_seconds=0.5)
    worker = Worker(listening, SECRET, Store(1 << 20, torch.device("cpu")), limits, Bounds(**bounds))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker, "{}:{}".format(*listening.getsockname())
    finally:
        worker.is_stopping = True
        thread.join()


def test_a_worker_drops_a_client_whose_machine_is_gone_with_an_answer_under_way(host, caplog):
    caplog.set_level("INFO")
    with serving(host.listening()) as (worker, address):
        remote = Remote(address, SECRET)
        (connection,) = worker.connections.values()
        host.pull_the_cable()
        connection.wire.send(Op.STATS)
        until = time.monotonic() + LONG
        while worker.connections and time.monotonic() < until:
            time.sleep(0.05)
    assert GONE in caplog.text
    assert worker.refused == 0
    remote.close()


def test_a_client_is_told_when_the_machine_of_its_other_worker_is_gone(host):
    with serving(host.listening()) as (_, far), serving(nearby(), peers=(far,)) as (worker, near):
        first, second = Remote(near, SECRET), Remote(far, SECRET)
        first.ask(Op.PEER, body=second.ask(Op.INBOX).body + far.encode())
        (peer,) = (hosted.peer for hosted in worker.programs._hosted.values() if hosted.peer)
        host.pull_the_cable()
        peer.wire.send(Op.STATS)
        with pytest.raises(RequestRefusedError, match=f"peer {far}: {GONE}"):
            first.answer(Op.EXEC)
        first.close()
        second.close()


def test_a_worker_whose_machine_is_gone_before_it_answers_is_named(host):
    listening = host.listening()
    address = "{}:{}".format(*listening.getsockname())

    def answer_nothing():
        accepted, _ = listening.accept()
        with accepted:
            host.pull_the_cable()

    answering = threading.Thread(target=answer_nothing)
    answering.start()
    with pytest.raises(UserError, match=f"worker {address}: {GONE}"):
        Remote(address, SECRET, Limits(stall_seconds=0.5), reply_seconds=LONG)
    answering.join()


def test_a_call_of_a_graph_ends_when_the_machine_that_runs_it_is_gone(host):
    program, weights, _ = captured(Layers(), IMAGES, ("scores",), ("scores",), (6,))
    plan = schedule(program, Policy.of("weights_resident", "wanted_only"))
    with serving(host.listening()) as (_, address):
        deployment = Deployment([Remote(address, SECRET, Limits(stall_seconds=0.5))], weights)
        deployment.load(plan)
        deployment.run(plan, IMAGES)
        host.pull_the_cable()
        with pytest.raises(PeerGoneError, match=GONE):
            deployment.run(plan, IMAGES)


def test_a_peer_that_computes_for_longer_than_the_limits_while_its_buffers_are_full_is_waited_for():
    client, worker = tcp_pair(stall_seconds=0.5)
    computing = threading.Thread(target=read_after, args=(worker, 2.5))
    computing.start()
    client.send_all(Op.PUT, tensors=LARGE, seconds=LONG)
    client.receive(LONG)
    computing.join()


def test_a_peer_that_computes_for_longer_than_the_limits_is_waited_for():
    client, worker = tcp_pair(stall_seconds=0.5)
    computing = threading.Thread(target=read_after, args=(worker, 2.5))
    computing.start()
    client.send_all(Op.STATS, seconds=LONG)
    client.receive(LONG)
    computing.join()


def read_after(worker, seconds):
    """Computes, and then reads a request and answers it."""
    time.sleep(seconds)
    worker.receive(10.0)
    worker.send(Op.PUT)


def test_the_kernel_keeps_a_peer_that_reads_nothing_for_longer_than_the_limits():
    """It looks each time that it probes, with pauses that double."""
    client, worker = tcp_pair(stall_seconds=1.0)
    client.send(Op.PUT, tensors=LARGE)
    assert client.has_unsent
    for _ in range(7):
        time.sleep(0.5)
        client.check_alive()
    for _ in range(100_000):
        client.flush()
        if worker.fill() and (frame := worker.frame()):
            break
    assert frame.tensors[0].numel() == LARGE[0].numel()
