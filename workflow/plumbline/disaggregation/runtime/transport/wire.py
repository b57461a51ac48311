"""Frames over one socket: authenticated, in order, within limits, without copies of large buffers.

`Wire` never blocks, so that a worker can serve many; `send_all` and `receive` are for a side that has one peer.
"""

import hmac
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.disaggregation.runtime.transport import buffers
from plumbline.disaggregation.runtime.transport.keys import keyed, tagged
from plumbline.disaggregation.runtime.transport.liveness import LOOK_SECONDS, is_gone, watch_over
from plumbline.disaggregation.runtime.transport.meter import KernelBytes, Meter, kernel_bytes
from plumbline.disaggregation.runtime.transport.protocol import (
    BODY_LIMITS,
    BUFFERS,
    HEADER,
    MAC_BYTES,
    MAX_BODY_BYTES,
    MAX_SEQUENCE,
    OVERHEAD_BYTES,
    VERSION,
    Limits,
    Op,
    PeerGoneError,
    WireError,
)

OPS = {int(op): op for op in Op}
LIMITS = [BODY_LIMITS[OPS[code]] if code in OPS else 0 for code in range(max(OPS) + 1)]
"""By operation, as an index: a member of an enum is slow to hash."""
START_BYTES = 4096
"""Of the receive buffer, which grows to the largest body that the protocol allows."""
NEW_TUPLE = tuple.__new__
"""Makes a NamedTuple in a third of the time that its own constructor takes."""
MAX_PIECES = 256
"""Pieces of memory that one `sendmsg` takes, below the system's IOV_MAX."""


class VersionError(WireError):
    """The peer speaks another version of the protocol."""


class Frame(NamedTuple):
    """A frame whose MACs have been checked."""

    op: Op
    flags: int
    session: int
    body: bytes
    tensors: Sequence[Tensor] = ()


@dataclass
class _Arriving:
    """A frame whose buffers are on their way."""

    frame: Frame
    specs: list[buffers.TensorSpec]
    chained: bytes
    """MAC of the header and body, which the MAC of the buffers covers too: buffers belong to their frame."""
    memory: Tensor
    """Bytes of the buffers and their MAC."""
    filled: int = 0


class Wire:
    """One end of a connection.

    The handshake gives it keys. `buffer_limits` holds how many bytes the buffers of each operation may
    have here; no body may be longer than `most_body_bytes`, or than its operation allows.
    """

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        connection.setblocking(True)  # calls that must not wait say so: a read that may is one system call then
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            watch_over(connection, limits.stall_seconds)
        self.socket = connection
        self.limits = limits
        self.meter = Meter()
        self.use_keys(b"", b"")
        self.buffer_limits = dict.fromkeys(Op, limits.buffer_bytes)
        self.most_body_bytes = MAX_BODY_BYTES
        acked = kernel_bytes(connection)
        self._acked_before = acked.acknowledged if acked else 0
        self._memory = bytearray(START_BYTES)
        self._view = memoryview(self._memory)
        self._start = self._end = 0
        self._arriving: _Arriving | None = None
        self._outbox: deque[memoryview] = deque()
        self._incomplete_since: float | None = None
        self._unsent_since: float | None = None
        self._waits: float | None = None

    def use_keys(self, outgoing: bytes, incoming: bytes) -> None:
        """From now on, MACs are made with the one and checked with the other."""
        self._mac_out, self._mac_in = keyed(outgoing), keyed(incoming)

    # Sending

    def send(self, op: Op, session: int = 0, body: bytes = b"", tensors: Sequence[Tensor] = (), flags: int = 0) -> None:
        """Queues a frame, and hands the system as much as it takes. Raises PeerGoneError."""
        if tensors:
            body, flags = buffers.describe(tensors) + body, flags | BUFFERS
        if len(body) > LIMITS[op]:
            raise WireError(f"{op.name}: a body of {len(body)} bytes, of at most {LIMITS[op]}")
        meter = self.meter
        number = meter.sent_frames
        if number > MAX_SEQUENCE:
            raise WireError("the connection has used up its sequence numbers; open another")
        data = HEADER.pack(VERSION, op, flags, session, len(body), number) + body
        state = self._mac_out.copy()
        state.update(data)
        tag = state.digest()
        data += tag
        meter.sent_frames = number + 1
        meter.sent_bytes += len(data)
        if not tensors and not self._outbox:
            self._send_small(data)
            return
        self._outbox.append(memoryview(data))
        if tensors:
            pieces = buffers.pieces(tensors)
            pieces.append(memoryview(tagged(self._mac_out, tag, *pieces)))
            meter.sent_bytes += sum(map(len, pieces))
            self._outbox.extend(pieces)
        self.flush()

    def _send_small(self, data: bytes) -> None:
        """What `flush` does, for the one frame of a few bytes that a token takes."""
        try:
            sent = self.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise PeerGoneError(f"the connection broke ({error.strerror})") from None
        if sent < len(data):
            self._outbox.append(memoryview(data)[sent:])
            self._unsent_since = time.monotonic()

    @property
    def has_unsent(self) -> bool:
        """Whether some of what was queued waits for the peer to read."""
        return bool(self._outbox)

    def flush(self) -> None:
        """Hands the system as much of the queue as it takes. Raises PeerGoneError."""
        outbox = self._outbox
        while outbox:
            try:
                if len(outbox) == 1:
                    sent = self.socket.send(outbox[0], socket.MSG_DONTWAIT)
                else:
                    sent = self.socket.sendmsg(list(islice(outbox, MAX_PIECES)), [], socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._unsent_since = self._unsent_since or time.monotonic()
                return
            except OSError as error:
                raise PeerGoneError(f"the connection broke ({error.strerror})") from None
            self._unsent_since = None
            while outbox and sent >= len(outbox[0]):
                sent -= len(outbox.popleft())
            if sent:
                outbox[0] = outbox[0][sent:]

    def send_all(
        self,
        op: Op,
        session: int = 0,
        body: bytes = b"",
        tensors: Sequence[Tensor] = (),
        flags: int = 0,
        *,
        seconds: float,
    ) -> None:
        """`send`, and waits until the system has all of it. Raises PeerGoneError when the peer is gone, or has read
        nothing for `seconds`: it may be computing.
        """
        self.send(op, session, body, tensors, flags)
        while self._outbox:
            if not self._can(select.POLLOUT, seconds):
                raise PeerGoneError(f"the peer has read nothing for {seconds:g} s")
            self.flush()

    # Receiving

    def fill(self, flags: int = socket.MSG_DONTWAIT) -> bool:
        """Reads what has arrived; whether anything had. To be called when there is no frame left to take.

        flags: 0 waits until something arrives, or the socket's timeout. Raises PeerGoneError when the connection ended.
        """
        arriving = self._arriving
        if arriving is not None:
            target = buffers.raw(arriving.memory)[arriving.filled :]
        else:
            target = self._view[self._end :] if self._end else self._view
        try:
            count = self.socket.recv_into(target, 0, flags)
        except BlockingIOError:
            return False
        except OSError as error:
            raise PeerGoneError(f"the connection broke ({error.strerror})") from None
        if not count:
            raise PeerGoneError("the peer closed the connection")
        if arriving is None:
            self._end += count
        else:
            arriving.filled += count
        return True

    def frame(self) -> Frame | None:
        """The next frame that is complete. Raises WireError for one that breaks the protocol."""
        found = self._parse() if self._arriving is None else self._complete()
        if found is not None:
            self._incomplete_since = None
            self.meter.received_frames += 1
        elif self._arriving is not None or self._end > self._start:
            self._incomplete_since = self._incomplete_since or time.monotonic()
        return found

    def check_alive(self) -> None:
        """Raises PeerGoneError when the peer's machine has not answered for about as long as an idle one may."""
        allowed = 2 * self.limits.stall_seconds
        if is_gone(self.socket, allowed):
            raise PeerGoneError(f"the peer's machine has not answered for {allowed:g} s")

    def check_stall(self, now: float) -> None:
        """Raises PeerGoneError as `check_alive`, and WireError when the peer takes too long to complete a frame, or to
        read.
        """
        self.check_alive()
        allowed = self.limits.stall_seconds
        if self._incomplete_since is not None:
            expected = len(self._arriving.memory) if self._arriving else 0
            if now - self._incomplete_since > allowed + expected / self.limits.least_bytes_per_second:
                raise WireError("stalled peer: a frame is incomplete")
        if self._unsent_since is not None and now - self._unsent_since > allowed:
            raise WireError(f"stalled peer: it has read nothing for {allowed:g} s")

    def excuse(self, seconds: float) -> None:
        """Gives the peer so much more time: this side was busy."""
        if self._incomplete_since is not None:
            self._incomplete_since += seconds
        if self._unsent_since is not None:
            self._unsent_since += seconds

    def receive(self, seconds: float) -> Frame:
        """The next frame, which is waited for: spinning for `limits.spin_seconds`, then asleep.

        Raises WireError, and PeerGoneError when the peer is gone, or after `seconds` without a byte.
        """
        found = self.frame() if self._end or self._arriving is not None else None
        while found is None:
            if self.limits.spin_seconds and self._spin():
                found = self.frame()
                continue
            if seconds != self._waits:
                first = min(seconds, LOOK_SECONDS)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(first))
                self._waits = seconds
            if not self.fill(0) and not self._can(select.POLLIN, seconds - LOOK_SECONDS):
                raise PeerGoneError(f"the peer has been silent for {seconds:g} s")
            found = self.frame()
        return found

    def _can(self, event: int, seconds: float) -> bool:
        """Waits until the socket can be read, or written; whether it can within `seconds`. Raises PeerGoneError."""
        poll = select.poll()
        poll.register(self.socket, event)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if poll.poll(1000 * min(left, LOOK_SECONDS)):
                return True
            self.check_alive()
        return False

    def _spin(self) -> bool:
        """Tries to read, for as long as the limits say; whether something arrived."""
        if self.fill():
            return True
        until = time.perf_counter() + self.limits.spin_seconds
        while time.perf_counter() < until:
            if self.fill():
                return True
        return False

    def kernel(self) -> KernelBytes | None:
        """The kernel's counters since this end was made; None where the socket has none."""
        now = kernel_bytes(self.socket)
        return now and KernelBytes(now.acknowledged - self._acked_before, now.received)

    def _parse(self) -> Frame | None:
        """The frame at the start of what was read, once its body is there and if no buffers follow."""
        start, memory = self._start, self._memory
        held = self._end - start
        if held < HEADER.size:
            if held and memory[start] != VERSION:
                raise _other_version(memory[start])
            self._make_room(OVERHEAD_BYTES)
            return None
        version, code, flags, session, length, sequence = HEADER.unpack_from(memory, start)
        if version != VERSION:
            raise _other_version(version)
        if (op := OPS.get(code)) is None:
            raise WireError(f"unknown op {code}")
        if length > LIMITS[code] or length > self.most_body_bytes:
            most = min(LIMITS[code], self.most_body_bytes)
            raise WireError(f"oversized length: {op.name} of {length} bytes, of at most {most}")
        meter = self.meter
        if sequence != meter.received_frames:
            raise WireError(f"replayed or missing frame: number {sequence}, not {meter.received_frames}")
        if held < length + OVERHEAD_BYTES:
            self._make_room(length + OVERHEAD_BYTES)
            return None
        end = start + HEADER.size + length
        signed, tag = self._view[start:end], memory[end : end + MAC_BYTES]
        state = self._mac_in.copy()
        state.update(signed)
        if not hmac.compare_digest(state.digest(), tag):
            raise WireError("wrong MAC")
        meter.received_bytes += length + OVERHEAD_BYTES
        self._start = end + MAC_BYTES
        if flags & BUFFERS:
            return self._begin_buffers(op, flags, session, signed[HEADER.size :], bytes(tag))
        if self._start == self._end:
            self._start = self._end = 0
        return NEW_TUPLE(Frame, (op, flags, session, signed[HEADER.size :].tobytes(), ()))

    def _begin_buffers(self, op: Op, flags: int, session: int, body: memoryview, tag: bytes) -> Frame | None:
        """Takes memory for the buffers that the body describes, and moves there what has arrived of them."""
        specs, place = buffers.parse(body, self.buffer_limits[op])
        memory = torch.empty(buffers.total(specs) + MAC_BYTES, dtype=torch.uint8)
        frame = Frame(op, flags, session, bytes(body[place:]))
        arriving = _Arriving(frame, specs, tag, memory)
        there = min(self._end - self._start, len(memory))
        buffers.raw(memory)[:there] = self._view[self._start : self._start + there]
        arriving.filled = there
        self._start += there
        if self._start == self._end:
            self._start = self._end = 0
        self._arriving = arriving
        return self._complete()

    def _complete(self) -> Frame | None:
        """The frame with buffers, once all of them are there."""
        arriving = self._arriving
        assert arriving is not None
        if arriving.filled < len(arriving.memory):
            return None
        data = buffers.raw(arriving.memory)
        size = len(data) - MAC_BYTES
        if not hmac.compare_digest(tagged(self._mac_in, arriving.chained, data[:size]), data[size:]):
            raise WireError("wrong MAC of the buffers")
        self.meter.received_bytes += len(data)
        self._arriving = None
        frame = arriving.frame
        tensors = buffers.tensors_in(arriving.memory, arriving.specs)
        return frame._replace(tensors=tensors)

    def _make_room(self, size: int) -> None:
        """Moves what was read to the front, and grows the memory to hold a frame of `size` bytes."""
        held = self._end - self._start
        if self._start + size <= len(self._memory):
            return
        kept = bytes(self._view[self._start : self._end])
        if size > len(self._memory):
            self._memory = bytearray(size)
            self._view = memoryview(self._memory)
        self._memory[:held] = kept
        self._start, self._end = 0, held


def _other_version(version: int) -> VersionError:
    return VersionError(f"this side speaks protocol version {VERSION}, the peer version {version}")


def _timeval(seconds: float) -> bytes:
    """Linux's struct timeval."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
