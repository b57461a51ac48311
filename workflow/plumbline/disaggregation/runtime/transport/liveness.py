"""Whether the machine at the other end of a connection still answers, as TCP knows it.

A machine that lost its power or its cable says nothing. While nothing is under way the kernel's keep-alive finds out;
while something is, it does not run, and the kernel would go on sending for 15 minutes. `is_gone` looks at what went
unanswered instead. A process that computes while its receive buffer is full is not gone: its kernel answers for it.
"""

import math
import socket
import struct
from contextlib import suppress

from plumbline.disaggregation.runtime.transport.meter import tcp_info

LOOK_SECONDS = 0.5
"""How often a side that waits looks whether its peer's machine is gone."""
KEEPALIVE_PROBES = 4
FEWEST_UNANSWERED = 3
"""Packets that the kernel has sent in vain before a machine counts as gone: one or two may be lost."""
TCP_RTO_MAX_MS = 44
"""Of Linux's tcp.h since 6.15: the longest pause between two tries."""
UNANSWERED = struct.Struct("<2xBB")
"""Of struct tcp_info: tcpi_retransmits and tcpi_probes, how often the kernel has sent in vain."""
LAST_ACK = struct.Struct("<I")
LAST_ACK_OFFSET = 56
"""Of tcpi_last_ack_recv: milliseconds since the peer's kernel last acknowledged anything."""


def watch_over(connection: socket.socket, seconds: float) -> None:
    """Has the kernel ask an idle peer after `seconds`, end the connection after about as long again without an answer,
    and try at least twice in that time while data is under way.

    The kernel's own keep-alive would take two hours. TCP_USER_TIMEOUT is not set: with it, the kernel also ends the
    connection to a peer that computes for longer while its receive buffer is full.
    """
    whole = max(1, math.ceil(seconds))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, whole),
        (socket.TCP_KEEPINTVL, max(1, whole // KEEPALIVE_PROBES)),
        (socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    with suppress(OSError):  # an older kernel: its pauses double, up to two minutes
        connection.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, 1000 * max(1, whole // 2))


def is_gone(connection: socket.socket, seconds: float) -> bool:
    """Whether the peer's machine has acknowledged nothing for `seconds`, although several packets wanted it.

    seconds: more than an idle connection stays without an acknowledgement, see `watch_over`. False for a socket that
    is not TCP's.
    """
    info = tcp_info(connection)
    if info is None:
        return False
    retransmits, probes = UNANSWERED.unpack_from(info)
    (milliseconds,) = LAST_ACK.unpack_from(info, LAST_ACK_OFFSET)
    return retransmits + probes >= FEWEST_UNANSWERED and milliseconds > 1000 * seconds
