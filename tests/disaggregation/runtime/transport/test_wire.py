"""Frames arrive whole and in order, or the connection is refused with the reason."""

import socket
import struct
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disaggregation.runtime.pairs import KEYS, as_worker, mac, sent_bytes, tcp_pair, unix_pair
from plumbline.disaggregation.runtime.transport import buffers, wire
from plumbline.disaggregation.runtime.transport.meter import settled
from plumbline.disaggregation.runtime.transport.protocol import (
    BODY_LIMITS,
    BUFFERS,
    HEADER,
    VERSION,
    Limits,
    Op,
    PeerGoneError,
    WireError,
)
from plumbline.disaggregation.runtime.transport.wire import VersionError, Wire

DECODE = {"op": Op.DECODE, "session": 7, "body": struct.pack("<Ii", 3, 42)}
PREFILL = {"op": Op.PREFILL, "body": b"settings", "tensors": [torch.arange(12).reshape(3, 4), torch.ones(5)]}


def refusal(data, **limits):
    """Why a worker refuses these bytes."""
    client, worker = unix_pair(**limits)
    client.socket.sendall(data)
    client.socket.shutdown(socket.SHUT_WR)
    try:
        while True:
            worker.receive(1.0)
    except WireError as refused:
        return str(refused)


def framed(body=b"", *, op=Op.DECODE, flags=0, length=None, sequence=0, version=VERSION):
    """A frame from a peer that holds the key and writes what it likes."""
    head = HEADER.pack(version, op, flags, 7, len(body) if length is None else length, sequence) + body
    return head + mac(KEYS.to_worker, head)


@pytest.mark.parametrize("dtype", buffers.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (2, 3, 5, 7)], ids=str)
def test_a_tensor_of_any_type_and_shape_arrives_as_it_was_sent(dtype, shape):
    sent = torch.randint(-100, 100, shape).to(dtype)
    client, worker = unix_pair()
    client.send_all(Op.PUT, body=b"name", tensors=[sent, sent, sent], seconds=1.0)
    frame = worker.receive(1.0)
    assert (frame.op, frame.body, len(frame.tensors)) == (Op.PUT, b"name", 3)
    for found in frame.tensors:
        assert found.dtype == dtype
        assert torch.equal(found, sent)
        assert found.data_ptr() % buffers.ALIGNMENT == 0


def test_large_buffers_cross_while_the_reader_is_slower_than_the_socket():
    sent = torch.randn(3_000_000)
    client, worker = tcp_pair()
    sender = threading.Thread(target=client.send_all, args=(Op.PUT, 0, b"w", [sent]), kwargs={"seconds": 5.0})
    sender.start()
    frame = worker.receive(5.0)
    sender.join()
    assert torch.equal(frame.tensors[0], sent)


def test_a_transposed_tensor_arrives_with_its_own_values():
    sent = torch.arange(6.0).reshape(2, 3).T
    client, worker = unix_pair()
    client.send(Op.PUT, tensors=[sent])
    assert torch.equal(worker.receive(1.0).tensors[0], sent)


def test_frames_that_arrive_byte_by_byte_are_whole():
    data = b"".join(sent_bytes(DECODE, PREFILL, DECODE))
    client, worker = unix_pair()
    found = []
    for byte in data:
        client.socket.send(bytes([byte]))
        worker.fill()
        while frame := worker.frame():
            found.append(frame)
    assert [frame.op for frame in found] == [Op.DECODE, Op.PREFILL, Op.DECODE]
    assert torch.equal(found[1].tensors[0], PREFILL["tensors"][0])


def test_a_body_longer_than_the_first_memory_arrives_behind_others():
    client, worker = unix_pair()
    for _ in range(50):
        client.send(**DECODE)
    client.send(Op.STATS, body=b"x" * BODY_LIMITS[Op.STATS])
    assert [worker.receive(1.0).op for _ in range(51)][-2:] == [Op.DECODE, Op.STATS]


@pytest.mark.parametrize("spin", [0.0, 0.05])
def test_a_reply_that_takes_longer_than_the_spin_is_waited_for(spin):
    client, worker = unix_pair(spin_seconds=spin)
    threading.Timer(0.15, client.send, kwargs=DECODE).start()
    assert worker.receive(5.0).session == 7


def test_one_token_there_and_back_takes_76_bytes_and_36_when_streamed():
    asked, streamed = sent_bytes(DECODE, {"op": Op.STREAM, "session": 7, "body": struct.pack("<i", 42)})
    assert len(asked) + len(streamed) == 76
    assert len(streamed) == 36


def test_protocol_counters_equal_the_kernels():
    client, worker = tcp_pair()
    for round in range(20):
        client.send_all(Op.PREFILL, tensors=[torch.zeros(1000 * round)], seconds=1.0)
        worker.receive(1.0)
        worker.send_all(Op.DECODE, body=b"abcd", seconds=1.0)
        client.receive(1.0)
    for end in (client, worker):
        settled(end.socket)
        kernel = end.kernel()
        assert (kernel.acknowledged, kernel.received) == (end.meter.sent_bytes, end.meter.received_bytes)
    assert client.meter.sent_bytes == worker.meter.received_bytes > 20_000


def test_wrong_mac_is_refused():
    (data,) = sent_bytes(DECODE)
    assert refusal(data[:-1] + bytes([data[-1] ^ 1])) == "wrong MAC"


def test_frames_under_another_key_are_refused():
    head = HEADER.pack(VERSION, Op.DECODE, 0, 7, 0, 0)
    assert refusal(head + mac(b"another key", head)) == "wrong MAC"


def test_changed_buffer_is_refused():
    (data,) = sent_bytes(PREFILL)
    at = len(data) - 30
    assert refusal(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) == "wrong MAC of the buffers"


def test_buffers_of_another_frame_are_refused():
    first, second = sent_bytes(PREFILL, {**PREFILL, "tensors": [torch.zeros(3, 4).long(), torch.ones(5)]})
    size = 96 + 32 + 20 + 16  # two padded buffers and their MAC
    assert len(first) == len(second)
    swapped = first[:-size] + second[-size:]
    assert refusal(swapped) == "wrong MAC of the buffers"


def test_replayed_frame_is_refused():
    (data,) = sent_bytes(DECODE)
    assert refusal(data + data) == "replayed or missing frame: number 0, not 1"


def test_missing_frame_is_refused():
    _, second = sent_bytes(DECODE, DECODE)
    assert refusal(second) == "replayed or missing frame: number 1, not 0"


def test_frame_sent_back_to_its_sender_is_refused():
    (data,) = sent_bytes(DECODE)
    client, worker = unix_pair()
    worker.socket.sendall(data)
    with pytest.raises(WireError, match="wrong MAC"):
        client.receive(1.0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (framed(op=99), "unknown op 99"),
        (framed(length=4097), "oversized length: DECODE of 4097 bytes, of at most 4096"),
        (framed(length=2**32 - 1), "oversized length: DECODE of 4294967295 bytes, of at most 4096"),
        (framed(b"\x01\xc8\x00", flags=BUFFERS), "unknown dtype 200"),
        (framed(struct.pack("<BBBq", 1, 1, 1, -5), flags=BUFFERS), r"negative shape [-5]"),
        (framed(struct.pack("<BBBq", 1, 1, 1, 2**61), flags=BUFFERS), "oversized shape"),
        (framed(struct.pack("<BBBqq", 1, 1, 2, 0, 2**61), flags=BUFFERS), "oversized shape"),
        (framed(struct.pack("<BBBqq", 1, 1, 2, 2**14, 2**14), flags=BUFFERS), "oversized buffers: 1073741824 bytes"),
        (framed(b"\x01\x01\x09", flags=BUFFERS), "9 dimensions, of at most 8"),
        (framed(b"\x00", flags=BUFFERS), "0 tensors"),
        (framed(b"\x01\x01\x02abc", flags=BUFFERS), "the description of the tensors is cut off"),
        (framed(b"", flags=BUFFERS), "the description of the tensors is cut off"),
    ],
)
def test_a_peer_with_the_key_is_held_to_the_protocol(data, reason):
    assert reason in refusal(data, buffer_bytes=2**29)


def test_another_version_is_refused_with_both_numbers_even_from_its_first_byte():
    for data in (framed(version=1), b"\x01"):
        client, worker = unix_pair()
        client.socket.sendall(data)
        with pytest.raises(VersionError, match=f"speaks protocol version {VERSION}, the peer version 1"):
            worker.receive(1.0)


def test_a_silent_peer_and_one_that_stops_reading_are_given_up():
    client, worker = unix_pair(stall_seconds=0.1)
    with pytest.raises(PeerGoneError, match=r"silent for 0\.1 s"):
        worker.receive(0.1)
    with pytest.raises(PeerGoneError, match=r"has read nothing for 0\.1 s"):
        client.send_all(Op.PUT, tensors=[torch.zeros(10_000_000)], seconds=0.1)


def test_a_peer_that_sends_too_slowly_stalls_and_one_that_is_idle_does_not():
    client, worker = unix_pair(stall_seconds=5.0)
    (data,) = sent_bytes(DECODE)
    worker.frame()
    worker.check_stall(1e12)
    client.socket.sendall(data[:20])
    worker.fill()
    worker.frame()
    began = worker._incomplete_since
    worker.check_stall(began + 4.9)
    with pytest.raises(WireError, match="stalled peer: a frame is incomplete"):
        worker.check_stall(began + 5.1)
    client.socket.sendall(data[20:])
    worker.fill()
    assert worker.frame()
    worker.check_stall(1e12)


FRAMES = st.one_of(
    st.builds(
        lambda session, body: {"op": Op.DECODE, "session": session, "body": body},
        st.integers(0, 2**32 - 1),
        st.binary(max_size=60),
    ),
    st.builds(
        lambda body, shape, dtype: {"op": Op.PREFILL, "body": body, "tensors": [torch.zeros(shape).to(dtype)]},
        st.binary(max_size=40),
        st.lists(st.integers(0, 4), max_size=3),
        st.sampled_from(buffers.DTYPES),
    ),
)
MUTATIONS = st.tuples(st.integers(1, 255), st.integers(0, 2**32), st.booleans())
MUTATED_FRAMES = 100_000
EXAMPLES = 100


def test_of_100_000_mutated_frames_none_passes_and_none_takes_memory_beyond_the_limit(monkeypatch):
    """Every byte of frames is changed, cut, doubled or moved; half of them get a MAC under the right key afterwards."""
    limits = Limits(buffer_bytes=4096)
    taken, counts = [], {"fed": 0, "passed": 0}
    real_empty = torch.empty

    def watched(size, **more):
        taken.append(size)
        return real_empty(size, **more)

    monkeypatch.setattr(wire.torch, "empty", watched)
    sender, receiver = socket.socketpair()

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(frame=FRAMES, mutations=st.lists(MUTATIONS, min_size=25, max_size=50))
    def mutate(frame, mutations):
        (whole,) = sent_bytes(frame)
        head = len(whole) if "tensors" not in frame else whole_head(frame)
        quota = -(-MUTATED_FRAMES // EXAMPLES)
        for number in range(quota):
            change, place, signs = mutations[number % len(mutations)]
            changed = mutated(whole, (place + number // len(mutations)) % len(whole), change)
            if signs and len(changed) >= head:
                front = changed[: head - 16]
                changed = front + mac(KEYS.to_worker, front) + changed[head:]
            if changed.startswith(whole):  # the change put in what stood there
                changed = whole[:-1]
            counts["fed"] += 1
            counts["passed"] += passes(changed, signs)

    def passes(data, signs):
        """Whether any frame passed that had no valid MAC of its own."""
        sender.sendall(data)
        worker = as_worker(Wire(receiver, limits))
        try:
            while worker.fill():
                while worker.frame():
                    if not signs:
                        return 1
        except WireError:
            pass
        while receiver_has(receiver):
            pass
        return 0

    mutate()
    assert counts["fed"] >= MUTATED_FRAMES
    assert counts["passed"] == 0
    assert taken
    assert max(taken) <= 4096 + 16


def whole_head(frame):
    return len(buffers.describe(frame["tensors"])) + len(frame["body"]) + 32


def mutated(data, place, change):
    """One change at a place: a byte flipped, the rest cut off, a part doubled, or bytes put in or taken out."""
    match change % 5:
        case 0:
            return data[:place]
        case 1:
            return data[:place] + bytes([change]) * (change % 7 + 1) + data[place:]
        case 2:
            return data[:place] + data[place + change % 7 + 1 :]
        case _:
            return data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]


def receiver_has(receiver):
    try:
        return bool(receiver.recv(1 << 16, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False
