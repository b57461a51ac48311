"""Bytes and round trips of a connection: counted from the frames, and as the kernel counts them."""

import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plumbline.disaggregation.runtime.transport.wire import Wire

TCP_INFO_BYTES = 256
BYTES_ACKED = struct.Struct("<QQ")
BYTES_ACKED_OFFSET = 120
"""Of bytes_acked and then bytes_received in Linux's struct tcp_info (since 4.1)."""


@dataclass(slots=True)
class Meter:
    """What went through a connection since it was opened, headers and MACs included."""

    sent_bytes: int = 0
    received_bytes: int = 0
    sent_frames: int = 0
    received_frames: int = 0
    round_trips: int = 0
    """Requests for whose reply this side waited. A stream counts once."""

    def since(self, before: "Meter") -> "Meter":
        """The difference to an earlier copy."""
        earlier = asdict(before)
        return Meter(**{name: value - earlier[name] for name, value in asdict(self).items()})


@dataclass(frozen=True)
class KernelBytes:
    """Bytes of payload that TCP has had acknowledged, and has received."""

    acknowledged: int
    received: int


def kernel_bytes(connection: socket.socket) -> KernelBytes | None:
    """The kernel's counters of a TCP connection; None for a socket of another kind, or a kernel without them.

    `acknowledged` has one more than was sent on the side that connected: the SYN takes a sequence number.
    """
    info = tcp_info(connection)
    return None if info is None else KernelBytes(*BYTES_ACKED.unpack_from(info, BYTES_ACKED_OFFSET))


def tcp_info(connection: socket.socket) -> bytes | None:
    """Linux's struct tcp_info; None for a socket of another kind, or a kernel from before 4.1."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    return info if len(info) >= BYTES_ACKED_OFFSET + BYTES_ACKED.size else None


def settled(connection: socket.socket, seconds: float = 1.0) -> KernelBytes | None:
    """The kernel's counters once they rest: a peer may acknowledge 40 ms late. Waits at most `seconds`."""
    return _at_rest(lambda: [kernel_bytes(connection)], seconds)[0]


def _at_rest(read: Callable[[], list[KernelBytes | None]], seconds: float = 1.0) -> list[KernelBytes | None]:
    """Counters once none of them changes any more."""
    before, deadline = read(), time.monotonic() + seconds
    while before != [None] * len(before) and time.monotonic() < deadline:
        time.sleep(0.05)
        now = read()
        if now == before:
            break
        before = now
    return before


def counted(wires: Sequence["Wire"]) -> dict[str, int | None]:
    """Bytes of all connections by the protocol's counters and the kernel's. Raises RuntimeError where they differ."""
    kernels = _at_rest(lambda: [wire.kernel() for wire in wires])
    protocol = sum(wire.meter.sent_bytes + wire.meter.received_bytes for wire in wires)
    known = [one.acknowledged + one.received for one in kernels if one is not None]
    total = sum(known) if len(known) == len(kernels) else None
    if total is not None and total != protocol:
        raise RuntimeError(f"the protocol counted {protocol} bytes, the kernel {total}")
    return {"protocol_bytes": protocol, "kernel_bytes": total}
