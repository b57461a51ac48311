"""The protocol's words: operations, data types, limits, and the fixed bodies of the operations of every token.

A frame on the wire is

    header (16 bytes) | body | MAC (16 bytes) [ | buffers | MAC (16 bytes) ]

The header holds version, operation, flags, session, length of the body, and sequence number. The body describes the
tensors that follow as buffers, if the flag `BUFFERS` is set, and then holds the operation's own bytes. The receiver
knows from the authenticated body how large the buffers are before it takes memory for them. All numbers are
little-endian. The version is the first byte of every frame of every version.
"""

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

VERSION = 4
HEADER = struct.Struct("<BBHIII")
MAC_BYTES = 16
OVERHEAD_BYTES = HEADER.size + MAC_BYTES
"""What a frame without buffers takes beside its body."""
MAX_SEQUENCE = 2**32 - 1


class Op(IntEnum):
    """What a frame asks for; a reply has the operation of its request, or `ERR`."""

    HELLO = 1
    """Opens a connection: each side sends its nonce."""
    LOAD = 2
    """Names a model; JSON. The reply holds the model's handle."""
    PUT = 3
    """One weight of a model that is being uploaded."""
    PREFILL = 4
    """Starts a session: the prompt goes through the model. The reply names the session."""
    DECODE = 5
    """One token of each row goes through the model."""
    STREAM = 6
    """As many decode steps as asked for. An answer has the tokens of one step or of several, one after another."""
    FREE = 7
    """Ends a session, or gives up a model."""
    STATS = 8
    """Counters of the worker; JSON."""
    ERR = 9
    """Why a request was refused, or failed; JSON."""
    GRAPH = 10
    """Names a captured graph by its hash, and brings it where the worker has none of that hash."""
    WEIGHTS = 11
    """Weights that a graph reads: named by their hash, or sent."""
    EXEC = 12
    """Runs a graph."""
    FETCH = 13
    """A value that a run has left on the worker."""
    INBOX = 14
    """A token under which another worker may send values to this connection's runs."""
    PEER = 15
    """Has the worker connect to another, to send values into an inbox there."""
    PEER_SEND = 16
    """A value for an inbox."""


BODY_LIMITS = {
    Op.HELLO: 64,
    Op.LOAD: 1 << 16,
    Op.PUT: 1 << 10,
    Op.PREFILL: 1 << 12,
    Op.DECODE: 1 << 12,
    Op.STREAM: 1 << 12,
    Op.FREE: 16,
    Op.STATS: 1 << 16,
    Op.ERR: 1 << 12,
    Op.GRAPH: 128,
    Op.WEIGHTS: 128,
    Op.EXEC: 1 << 12,
    Op.FETCH: 128,
    Op.INBOX: 64,
    Op.PEER: 256,
    Op.PEER_SEND: 128,
}
"""Bytes that the body of each operation may have; a longer one is refused by its header."""
MAX_BODY_BYTES = max(BODY_LIMITS.values())

MOST_ROWS = 1000
"""Of a batch: their tokens, 4 bytes each, fit into the bodies above."""

BUFFERS = 1
"""Flag: tensors follow the body."""
LAST = 2
"""Flag: the last frame of a stream; of any answer with tokens, that every row has ended."""
ON_MODEL = 4
"""Flag of FREE: the number in the header is a model's handle."""
EVERY_POSITION = 8
"""Flag of PREFILL, for comparison: logits are computed at every position of the prompt, and only the last one used."""
NO_PHASE = 16
"""Flag of PREFILL, for comparison: each step runs as a prompt does, over the whole sequence."""

DECODE = struct.Struct("<I")
"""The session's epoch: how many times its state has changed. The tokens follow, 4 bytes each."""
STREAM = struct.Struct("<II")
"""The session's epoch, and the number of steps. The tokens follow."""
PREFILL = struct.Struct("<IBIdIQiB")
"""Model, what replies hold (`Reply`), how many steps to stream after the prompt's, temperature (0: greedy), top-k (0:
all), seed, padding token (-1: none), number of end-of-text tokens, which follow, 4 bytes each."""


class Reply(IntEnum):
    """What the worker sends back for a step."""

    TOKENS = 0
    """The tokens that it has chosen."""
    LAST_LOGITS = 1
    """Logits at the last position, float32, from which the client chooses."""
    ALL_LOGITS = 2
    """Logits at every position."""
    STATE = 3
    """Logits at the last position, and the session's keys and values, which the next step has to bring back."""
    TOKENS_AND_STATE = 4
    """The tokens that it has chosen, and keys and values as with `STATE`."""


SHIPS_STATE = (Reply.STATE, Reply.TOKENS_AND_STATE)
"""Replies that leave the session without its state."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one side takes from the other, and how long it waits."""

    buffer_bytes: int = 1 << 30
    """The most bytes that the buffers of one frame may have."""
    stall_seconds: float = 10.0
    """A peer may take so long to complete a frame, or to take what it is sent, and besides a second for every
    `least_bytes_per_second`."""
    least_bytes_per_second: int = 1 << 16
    spin_seconds: float = 0.0
    """How long a read tries again and again before it sleeps. Saves the time that waking takes, and costs a core."""
    stream_seconds: float = 0.033
    """How long after a frame of a stream its next tokens may wait for each other, to go in one frame; 0: each goes at
    once. 33 ms are 30 frames a second."""


class WireError(Exception):
    """The peer broke the protocol: the connection cannot go on. The message is the reason."""


class PeerGoneError(WireError):
    """The connection has ended, or the peer is silent."""


def json_bytes(values: Any) -> bytes:
    """`values` as compact JSON."""
    return json.dumps(values, separators=(",", ":"), sort_keys=True).encode()


def json_object(body: bytes | memoryview) -> dict[str, Any]:
    """The JSON object in `body`. Raises WireError when there is none."""
    try:
        values = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise WireError("the body is not valid JSON") from None
    if not isinstance(values, dict):
        raise WireError("the body is not a JSON object")
    return values
