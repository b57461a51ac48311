"""Whatever a peer does wrong is refused with a logged reason, in bounded memory, and the worker lives on."""

import random
import socket
import struct
import time
from dataclasses import replace

import psutil
import pytest
import torch

from disaggregation.runtime.pairs import SECRET, mac
from disaggregation.runtime.workers import CONFIGS, GPT2, forked_worker
from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.models.session import Session
from plumbline.disaggregation.runtime.models.weights import RefusedError, Store, held_bytes, skeleton, specs_of
from plumbline.disaggregation.runtime.serving.connection import Bounds
from plumbline.disaggregation.runtime.transport.keys import answer_key, connection_keys, hello_key, new_nonce
from plumbline.disaggregation.runtime.transport.protocol import (
    BUFFERS,
    DECODE,
    HEADER,
    ON_MODEL,
    PREFILL,
    STREAM,
    VERSION,
    Limits,
    Op,
    PeerGoneError,
    Reply,
    json_bytes,
    json_object,
)
from plumbline.disaggregation.runtime.transport.remote import Remote
from plumbline.disaggregation.runtime.transport.wire import Wire
from plumbline.disaggregation.runtime.worker import Worker

MEBIBYTE = 1 << 20


class Served:
    """A worker in this process, that works when it is told to."""

    def __init__(self, bounds=None, **limits):
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = listening.getsockname()
        self.worker = Worker(listening, SECRET, Store(MEBIBYTE, torch.device("cpu")), Limits(**limits), bounds)

    def work(self, turns=4):
        for _ in range(turns):
            self.worker.turn(0.001)

    def dial(self):
        connection = socket.create_connection(self.address)
        self.work(1)
        return connection

    def close(self):
        self.worker.is_stopping = True
        self.worker.run()


class Peer:
    """A client that has shaken hands, and then may write what it likes under the connection's key."""

    def __init__(self, served):
        self.served = served
        self.wire = Wire(served.dial(), Limits())
        nonce = new_nonce()
        self.wire.use_keys(hello_key(SECRET), answer_key(SECRET, nonce))
        self.wire.send(Op.HELLO, body=nonce)
        served.work()
        self.keys = connection_keys(SECRET, nonce, self.wire.receive(1.0).body)
        self.wire.use_keys(self.keys.to_worker, self.keys.to_client)
        self.ask(Op.STATS)

    def ask(self, op, session=0, body=b"", tensors=(), turns=4):
        self.wire.send(op, session, body, tensors)
        self.served.work(turns)
        return self.wire.receive(1.0)

    def load(self):
        body = json_bytes({"config": GPT2, "dtype": "float32", "seed": 1})
        return json_object(self.ask(Op.LOAD, body=body).body)["model"]

    def start(self, model, prompt):
        body = PREFILL.pack(model, Reply.TOKENS, 0, 0.0, 0, 0, -1, 0)
        return self.ask(Op.PREFILL, body=body, tensors=[torch.tensor([prompt])])

    def signed(self, body=b"", *, op=Op.STATS, flags=0, session=0, length=None, version=VERSION):
        """A frame with a valid MAC and the next number."""
        size = len(body) if length is None else length
        head = HEADER.pack(version, op, flags, session, size, self.wire.meter.sent_frames) + body
        return head + mac(self.keys.to_worker, head)


@pytest.fixture
def served():
    served = Served()
    yield served
    served.close()


def is_refused(served, connection, caplog, reason):
    """Whether the connection was ended with this reason, and another still served."""
    served.work()
    assert any(reason in record.getMessage() for record in caplog.records), caplog.text
    connection.settimeout(1.0)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    assert Peer(served).ask(Op.STATS).op is Op.STATS
    return True


ATTACKS = {
    "wrong MAC": lambda peer: (frame := peer.signed())[:-1] + bytes([frame[-1] ^ 1]),
    "replayed or missing frame: number 1, not 2": lambda peer: replay(peer),
    "oversized length: DECODE of 1000000000 bytes": lambda peer: peer.signed(op=Op.DECODE, length=10**9),
    "unknown op 77": lambda peer: peer.signed(op=77),
    "unknown dtype 99": lambda peer: peer.signed(b"\x01\x63\x00", op=Op.PREFILL, flags=BUFFERS),
    "negative shape [-1]": lambda peer: peer.signed(struct.pack("<BBBq", 1, 1, 1, -1), op=Op.PREFILL, flags=BUFFERS),
    "oversized shape [1073741824]": lambda peer: peer.signed(
        struct.pack("<BBBq", 1, 1, 1, 1 << 30), op=Op.PREFILL, flags=BUFFERS
    ),
    "oversized shape [64]": lambda peer: peer.signed(  # no weights are expected, so none may come
        struct.pack("<BBBq", 1, 1, 1, 64), op=Op.PUT, flags=BUFFERS
    ),
    f"this side speaks protocol version {VERSION}, the peer version 9": lambda peer: peer.signed(version=9),
    "HELLO is not a request": lambda peer: peer.signed(bytes(32), op=Op.HELLO),
    "the body is not valid JSON": lambda peer: peer.signed(b"[" * 50_000, op=Op.LOAD),
}


def replay(peer):
    """The frame that the peer has sent last, once more."""
    peer.wire.meter.sent_frames -= 1
    return peer.signed()


@pytest.mark.parametrize("reason", ATTACKS)
def test_a_peer_that_breaks_the_protocol_is_refused_with_the_reason(served, caplog, reason):
    peer = Peer(served)
    peer.wire.socket.sendall(ATTACKS[reason](peer))
    assert is_refused(served, peer.wire.socket, caplog, reason)


def test_another_key_is_refused(served, caplog):
    wire = Wire(served.dial(), Limits())
    wire.use_keys(hello_key(b"x" * 32), b"")
    wire.send(Op.HELLO, body=new_nonce())
    assert is_refused(served, wire.socket, caplog, "wrong MAC")


def test_a_recorded_conversation_is_refused_on_another_connection(served, caplog):
    """The hello passes, for it is genuine; the first frame after it does not, and no request is carried out."""
    nonce = new_nonce()
    recorded = HEADER.pack(VERSION, Op.HELLO, 0, 0, 32, 0) + nonce
    recorded += mac(hello_key(SECRET), recorded)
    peer = Peer(served)
    recorded += peer.signed()
    connection = served.dial()
    connection.sendall(recorded[:64])
    served.work()
    connection.sendall(recorded[64:])
    assert is_refused(served, connection, caplog, "replayed or missing frame")


def test_bytes_that_are_no_protocol_are_refused(served, caplog):
    connection = served.dial()
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert is_refused(served, connection, caplog, f"this side speaks protocol version {VERSION}, the peer version 71")


def test_a_handle_of_another_connection_is_refused_and_its_owner_goes_on(served, caplog):
    owner, thief = Peer(served), Peer(served)
    model = owner.load()
    session = owner.start(model, [1, 2, 3]).session
    step = DECODE.pack(1) + struct.pack("<i", 5)
    for op, handle in ((Op.DECODE, session), (Op.STREAM, session), (Op.FREE, session)):
        told = thief.ask(op, handle, step if op is Op.DECODE else b"")
        assert (told.op, json_object(told.body)["kind"]) == (Op.ERR, "refused")
        assert f"foreign handle: session {session} is not one of this connection" in caplog.text
    assert json_object(thief.start(model, [1]).body)["message"].startswith("foreign handle: model")
    assert owner.ask(Op.DECODE, session, step).op is Op.DECODE


def test_a_request_that_follows_another_state_is_refused_as_stale(served, caplog):
    peer = Peer(served)
    session = peer.start(peer.load(), [1, 2, 3]).session
    step = struct.pack("<i", 5)
    assert peer.ask(Op.DECODE, session, DECODE.pack(1) + step).op is Op.DECODE
    assert peer.ask(Op.DECODE, session, DECODE.pack(1) + step).op is Op.ERR
    assert "stale handle: the session is at epoch 2, the request at 1" in caplog.text
    assert peer.ask(Op.DECODE, session, DECODE.pack(2) + step).op is Op.DECODE


def test_a_second_request_for_a_busy_session_is_refused(served, caplog):
    peer = Peer(served)
    session = peer.start(peer.load(), [1, 2, 3]).session
    stream = STREAM.pack(1, 50) + struct.pack("<i", 5)
    peer.wire.send(Op.STREAM, session, stream)
    peer.wire.send(Op.STREAM, session, stream)
    served.work()
    assert f"session {session} is busy" in caplog.text


def test_streamed_tokens_wait_for_each_other_only_while_nothing_else_waits_for_the_worker(served):
    served.worker.limits = replace(served.worker.limits, stream_seconds=60.0)
    pair = first, second = Peer(served), Peer(served)
    sessions = [peer.start(peer.load(), [1, 2, 3]).session for peer in pair]
    for peer, session, steps in zip(pair, sessions, (4, 8), strict=True):
        peer.wire.send(Op.STREAM, session, STREAM.pack(1, steps) + struct.pack("<i", 5))
    served.work(20)
    assert [len(first.wire.receive(1.0).body) for _ in range(4)] == [4, 4, 4, 4]
    # the last five of its steps had the worker for themselves
    assert [len(second.wire.receive(1.0).body) for _ in range(4)] == [4, 4, 4, 20]


def test_tokens_that_wait_are_sent_before_a_request_that_takes_long_and_before_an_error(served, monkeypatch):
    served.worker.limits = replace(served.worker.limits, stream_seconds=60.0)
    first, second = Peer(served), Peer(served)
    session = first.start(first.load(), [1, 2, 3]).session
    first.wire.send(Op.STREAM, session, STREAM.pack(1, 20) + struct.pack("<i", 5))
    served.work(5)  # the first goes at once, the others wait
    assert len(first.wire.receive(1.0).body) == 4
    second.load()
    assert len(first.wire.receive(1.0).body) == 4 * 4
    monkeypatch.setattr(Session, "decode", lambda self, tokens: 1 / 0)
    served.work(3)
    assert len(first.wire.receive(1.0).body) == 4 * 4  # of the four turns that loading took
    assert first.wire.receive(1.0).op is Op.ERR


def test_a_freed_session_and_a_closed_connection_leave_nothing(served):
    owner, other = Peer(served), Peer(served)
    model = owner.load()
    session = owner.start(model, [1, 2, 3]).session
    assert list(json_object(owner.ask(Op.STATS).body)["sessions"]) == [str(session)]
    assert owner.ask(Op.FREE, session).op is Op.FREE
    assert json_object(owner.ask(Op.STATS).body)["sessions"] == {}
    owner.wire.socket.close()
    told = json_object(other.ask(Op.STATS).body)
    assert (told["weights"], told["weights_bytes"], told["connections"]) == ({}, 0, 1)


def test_a_model_with_sessions_is_not_freed_under_them(served, caplog):
    peer = Peer(served)
    model = peer.load()
    session = peer.start(model, [1, 2, 3]).session
    peer.wire.send(Op.FREE, model, flags=ON_MODEL)
    served.work()
    assert peer.wire.receive(1.0).op is Op.ERR
    assert f"model {model} has sessions; free them first" in caplog.text
    assert peer.ask(Op.FREE, session).op is Op.FREE
    peer.wire.send(Op.FREE, model, flags=ON_MODEL)
    served.work()
    assert peer.wire.receive(1.0).op is Op.FREE
    assert json_object(peer.ask(Op.STATS).body)["weights_bytes"] == 0


def test_a_session_is_held_to_its_memory(served, caplog):
    served.worker.bounds = Bounds(session_bytes=10 * 2 * 2 * 32 * 4)  # ten tokens of keys and values in two layers
    peer = Peer(served)
    model = peer.load()
    assert peer.start(model, [1] * 11).op is Op.ERR
    started = peer.start(model, [1] * 9)
    stats = json_object(peer.ask(Op.STATS).body)
    assert stats["sessions"][str(started.session)]["state_bytes"] == 9 * 2 * 2 * 32 * 4
    token = struct.pack("<i", 5)
    assert peer.ask(Op.STREAM, started.session, STREAM.pack(1, 2) + token).op is Op.ERR
    assert peer.ask(Op.DECODE, started.session, DECODE.pack(1) + token).op is Op.DECODE
    assert "a session may have 5120" in caplog.text


def test_logits_are_held_to_the_memory_of_a_session(served, caplog):
    """Those of every position of 20 tokens take 20 times as much as those of the last."""
    served.worker.bounds = Bounds(session_bytes=20 * 97 * 8 - 1)
    peer = Peer(served)
    model = peer.load()
    for reply, op in ((Reply.ALL_LOGITS, Op.ERR), (Reply.LAST_LOGITS, Op.PREFILL)):
        body = PREFILL.pack(model, reply, 0, 0.0, 0, 0, -1, 0)
        assert peer.ask(Op.PREFILL, body=body, tensors=[torch.ones(1, 20).long()]).op is op
    assert "logits of 15520 bytes: a session may have 15519" in caplog.text


def test_all_sessions_together_are_held_to_their_memory_and_give_it_back(served, caplog):
    """Ten tokens of keys and values in two layers, and a step's logits, for each of two clients."""
    size = 10 * 2 * 2 * 32 * 4 + 97 * 8
    served.worker.budget.most_bytes = 2 * size
    first, second, third = Peer(served), Peer(served), Peer(served)
    started = first.start(first.load(), [1] * 10)
    assert started.op is second.start(second.load(), [1] * 10).op is Op.PREFILL
    assert json_object(first.ask(Op.STATS).body)["sessions_bytes"] == 2 * size
    token = struct.pack("<i", 5)
    assert first.ask(Op.DECODE, started.session, DECODE.pack(1) + token).op is Op.ERR
    model = third.load()
    assert third.start(model, [1]).op is Op.ERR
    assert f"the others hold {2 * size} of {2 * size}; free some" in caplog.text
    assert first.ask(Op.FREE, started.session).op is Op.FREE
    second.wire.socket.close()
    served.work()
    assert third.start(model, [1] * 10).op is Op.PREFILL
    assert served.worker.budget.bytes == size


def test_buffers_that_are_not_saved_are_counted_before_a_model_is_built():
    """A Llama has no weight for its rotary frequencies: a buffer of its own, which safetensors files do not hold."""
    model = skeleton(CONFIGS["llama"], "float32")
    assert held_bytes(model) - sum(spec.size for spec in specs_of(model).values()) >= 4 * 4
    store = Store(held_bytes(model) - 1, torch.device("cpu"))
    with pytest.raises(RefusedError, match=f"weights of {held_bytes(model)} bytes: 0 of {held_bytes(model) - 1}"):
        store.seeded(CONFIGS["llama"], "float32", 0)


def test_sessions_of_a_connection_are_counted(served, caplog):
    served.worker.bounds = Bounds(sessions=2)
    peer = Peer(served)
    model = peer.load()
    assert [peer.start(model, [1]).op for _ in range(3)] == [Op.PREFILL, Op.PREFILL, Op.ERR]
    assert "a connection may have 2 sessions" in caplog.text


@pytest.mark.parametrize("sent", [b"", bytes([VERSION])], ids=["silent", "one byte"])
def test_a_stranger_that_stalls_is_refused(caplog, sent):
    served = Served(stall_seconds=0.2)
    connection = served.dial()
    connection.sendall(sent)
    time.sleep(0.3)
    assert is_refused(served, connection, caplog, "stalled peer")
    served.close()


def test_a_peer_that_sends_its_frame_too_slowly_is_refused(caplog):
    served = Served(stall_seconds=0.3)
    peer = Peer(served)
    frame = peer.signed(b"x" * 100)
    for byte in frame[:100]:
        peer.wire.socket.send(bytes([byte]))
        served.work(1)
        time.sleep(0.02)
        if "stalled peer: a frame is incomplete" in caplog.text:
            break
    assert is_refused(served, peer.wire.socket, caplog, "stalled peer: a frame is incomplete")
    served.close()


def test_a_peer_that_does_not_read_its_answers_stalls_alone(served, caplog):
    reading, deaf = Peer(served), Peer(served)
    deaf.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection = next(c for c in served.worker.connections.values() if c.peer.endswith(str(port_of(deaf))))
    connection.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for _ in range(3000):
        deaf.wire.send(Op.STATS)
        if deaf.wire.has_unsent:
            break
        served.work(1)
    assert connection.wire.has_unsent
    assert sum(map(len, connection.wire._outbox)) < MEBIBYTE
    assert reading.ask(Op.STATS).op is Op.STATS
    served.worker._check_stalls(time.monotonic() + 0.4)
    assert "stalled" not in caplog.text
    for late in range(1, 30):
        served.worker._check_stalls(time.monotonic() + 0.4 * late)
    assert "stalled peer: it has read nothing for 10 s" in caplog.text
    assert reading.ask(Op.STATS).op is Op.STATS


def port_of(peer):
    return peer.wire.socket.getsockname()[1]


def test_peers_are_excused_while_the_worker_is_busy(served, caplog):
    """A model took a minute to build: the first look afterwards refuses nobody, later ones do."""
    peer = Peer(served)
    peer.wire.socket.send(peer.signed()[:20])
    served.work()
    served.worker._check_stalls(time.monotonic() + 60)
    assert "stalled" not in caplog.text
    for later in range(60, 80):
        served.worker._check_stalls(time.monotonic() + later)
    assert "stalled peer: a frame is incomplete" not in caplog.text
    for later in range(400):
        served.worker._check_stalls(time.monotonic() + 80 + 0.4 * later)
    assert "stalled peer: a frame is incomplete" in caplog.text


def test_of_a_thousand_connections_strangers_make_room_and_memory_is_bounded():
    with forked_worker(bounds=Bounds(connections=64), stall_seconds=60) as worker:
        before = psutil.Process(worker.pid).memory_info().rss
        host, port = worker.address.split(":")
        crowd = [socket.create_connection((host, int(port))) for _ in range(900)]
        for connection in crowd:
            connection.send(HEADER.pack(VERSION, Op.HELLO, 0, 0, 32, 0))  # the rest would come later
        remote = Remote(worker.address, SECRET)
        stats = remote.stats()
        crowd += [socket.create_connection((host, int(port))) for _ in range(100)]
        time.sleep(0.2)
        assert stats["connections"] <= 64
        assert remote.stats()["refused"] >= 900 - 64
        assert psutil.Process(worker.pid).memory_info().rss - before < 40 * MEBIBYTE
        for connection in crowd:
            connection.close()


def test_the_oldest_stranger_makes_room_and_is_told_nothing_before_the_handshake(caplog):
    served = Served(bounds=Bounds(connections=2))
    peer, stranger = Peer(served), served.dial()
    other = Peer(served)
    assert "makes room for another connection" in caplog.text
    assert stranger.recv(100) == b""
    assert all(one.ask(Op.STATS).op is Op.STATS for one in (peer, other))
    served.close()


def test_a_stranger_gets_memory_for_a_hello_alone(served, caplog):
    connection = served.dial()
    connection.sendall(HEADER.pack(VERSION, Op.LOAD, 0, 0, 65536, 0))
    assert is_refused(served, connection, caplog, "oversized length: LOAD of 65536 bytes, of at most 32")


@pytest.mark.parametrize("error", [RuntimeError("can't allocate memory"), MemoryError(), IndexError("wrong")])
def test_an_error_of_the_worker_ends_one_connection_alone(served, caplog, monkeypatch, error):
    """Where a frame is read, and where an answer is sent."""

    def fails(*arguments, **more):
        raise error

    peer, other = Peer(served), Peer(served)
    model, session = other.load(), None
    session = other.start(model, [1, 2, 3]).session
    with monkeypatch.context() as broken:
        broken.setattr(Wire, "_begin_buffers", fails)
        told = peer.start(1, [1])
    assert json_object(told.body)["kind"] == "fault"
    with monkeypatch.context() as broken:
        broken.setattr("plumbline.disaggregation.runtime.serving.turns._packed", fails)
        told = other.ask(Op.DECODE, session, DECODE.pack(1) + struct.pack("<i", 5))
    assert json_object(told.body)["kind"] == "fault"
    assert served.worker.connections == {}
    assert Peer(served).ask(Op.STATS).op is Op.STATS


def test_a_run_that_is_refused_once_its_client_is_gone_does_not_end_the_worker(served, monkeypatch):
    peer = Peer(served)
    peer.load()
    (connection,) = served.worker.connections.values()

    def refuses(connection):
        raise RefusedError("EXEC: the peer was lost")

    monkeypatch.setattr(served.worker.programs, "step", refuses)
    peer.wire.socket.close()
    connection.wire.socket.shutdown(socket.SHUT_WR)  # what is told now breaks
    served.worker._run(connection)
    served.work()
    assert served.worker.connections == {}
    assert Peer(served).ask(Op.STATS).op is Op.STATS


def test_a_long_message_of_any_characters_fits_into_its_frame(served):
    peer = Peer(served)
    for character in ("x", "\u00e9", "\U0001f600", "\x01"):
        told = peer.ask(Op.LOAD, body=json_bytes({"folder": "", "dtype": character * 2000}))
        assert json_object(told.body)["kind"] == "refused"


def test_sessions_that_are_freed_at_once_keep_no_other_waiting(served):
    """Prompts whose sessions end in the same read: nothing of them is left to be taken out turn by turn."""
    patient, busy = Peer(served), Peer(served)
    session = patient.start(patient.load(), [1, 2, 3]).session
    model, steps = busy.load(), served.worker.turns.steps
    body, handle = PREFILL.pack(model, Reply.TOKENS, 0, 0.0, 0, 0, -1, 0), served.worker._handles
    for number in range(1, 6):  # few enough to be read at once
        busy.wire.send(Op.PREFILL, 0, body, [torch.tensor([[1]])])
        busy.wire.send(Op.FREE, handle + number)
    served.work(1)
    assert (served.worker.turns.steps, served.worker._handles) == (steps, handle + 5)
    assert patient.ask(Op.DECODE, session, DECODE.pack(1) + struct.pack("<i", 5), turns=2).op is Op.DECODE


def test_models_of_a_connection_are_counted_and_others_models_are_not_told(caplog):
    served = Served(bounds=Bounds(models=2))
    peer, other = Peer(served), Peer(served)
    for seed in range(2):
        body = json_bytes({"config": GPT2, "dtype": "float32", "seed": seed})
        assert peer.ask(Op.LOAD, body=body).op is Op.LOAD
    assert peer.ask(Op.LOAD, body=body).op is Op.ERR
    assert "a connection may have 2 models; free one" in caplog.text
    other.load()
    assert [len(json_object(one.ask(Op.STATS).body)["weights"]) for one in (peer, other)] == [2, 1]
    served.close()


def test_when_all_connections_hold_the_key_a_further_one_is_refused(caplog):
    served = Served(bounds=Bounds(connections=2))
    peers = [Peer(served), Peer(served)]
    third = served.dial()
    served.work()
    assert third.recv(1) == b""
    assert "2 connections are open already" in caplog.text
    assert all(peer.ask(Op.STATS).op is Op.STATS for peer in peers)
    served.close()


def test_mutated_requests_execute_nothing(served, caplog):
    """Steps of a live session with one byte changed: each ends its connection by the MAC or the framing."""
    draw, reasons = random.Random(0), set()
    for _ in range(300):
        peer = Peer(served)
        session = peer.start(peer.load(), [1, 2, 3]).session
        (connection,) = served.worker.connections.values()
        state, steps = connection.sessions[session], served.worker.turns.steps
        frame = bytearray(peer.signed(DECODE.pack(1) + struct.pack("<i", 5), op=Op.DECODE, session=session))
        frame[draw.randrange(len(frame))] ^= draw.randrange(1, 256)
        caplog.clear()
        peer.wire.socket.sendall(frame)
        served.work(3)
        peer.wire.socket.close()
        served.work(3)
        assert (state.epoch, served.worker.turns.steps, served.worker.connections) == (1, steps, {})
        reasons |= {record.getMessage().split(": ")[1] for record in caplog.records}
    framing = (
        "replayed or missing frame",
        "oversized length",
        "unknown op",
        f"this side speaks protocol version {VERSION}",
    )
    assert all(reason.startswith(("wrong MAC", *framing)) for reason in reasons), reasons
    assert "wrong MAC" in reasons


def test_a_client_is_told_which_version_or_key_does_not_fit():
    with forked_worker() as worker:
        with pytest.raises(UserError, match=rf"worker {worker.address}: the worker holds another key"):
            Remote(worker.address, b"y" * 32)
        assert Remote(worker.address, SECRET).stats()["connections"] == 1


def test_a_client_of_another_version_is_told_both_numbers(monkeypatch):
    from plumbline.disaggregation.runtime.transport import wire

    with forked_worker() as worker:
        monkeypatch.setattr(wire, "VERSION", 1)
        with pytest.raises(UserError, match=f"this side speaks protocol version 1, the peer version {VERSION}"):
            Remote(worker.address, SECRET)


def test_no_worker_at_an_address_is_one_line_with_the_command():
    with pytest.raises(UserError, match=r"worker 127\.0\.0\.1:9: cannot be reached .*plumbline worker --listen"):
        Remote("127.0.0.1:9", SECRET)


@pytest.mark.parametrize("waits", [{"reply_seconds": 0.2}, {"hello_seconds": 0.2}])
def test_a_silent_worker_is_given_up(waits):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"worker {address}: the peer has been silent for 0\.2 s"):
            Remote(address, SECRET, **waits)


def test_gone_peers_are_no_refusals(served):
    Peer(served).wire.socket.close()
    served.work()
    assert (served.worker.refused, len(served.worker.connections)) == (0, 0)
    with pytest.raises(PeerGoneError):
        Wire(socket.socketpair()[0], Limits()).receive(0.1)
