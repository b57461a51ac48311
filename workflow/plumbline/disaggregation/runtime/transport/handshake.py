"""Opening a connection: who holds the secret, and which keys both sides use from then on."""

from plumbline.disaggregation.runtime.transport.keys import (
    NONCE_BYTES,
    answer_key,
    connection_keys,
    hello_key,
    new_nonce,
)
from plumbline.disaggregation.runtime.transport.protocol import (
    MAX_BODY_BYTES,
    Op,
    PeerGoneError,
    WireError,
    json_object,
)
from plumbline.disaggregation.runtime.transport.wire import Frame, VersionError, Wire


def greet(wire: Wire, secret: bytes, seconds: float) -> None:
    """The client's side, which waits for the answer, for `seconds` at most: the worker may be computing.

    Raises WireError when the worker refuses, or has another key, and PeerGoneError when it is gone or does not answer.
    """
    nonce = new_nonce()
    wire.use_keys(hello_key(secret), answer_key(secret, nonce))
    wire.send_all(Op.HELLO, body=nonce, seconds=seconds)
    try:
        answer = wire.receive(seconds)
    except (VersionError, PeerGoneError):
        raise
    except WireError as error:
        raise WireError(f"the worker holds another key ({error})") from None
    if answer.op is Op.ERR:
        raise WireError(str(json_object(answer.body).get("message")))
    if answer.op is not Op.HELLO or len(answer.body) != NONCE_BYTES:
        raise WireError("the worker's answer is not a hello")
    keys = connection_keys(secret, nonce, answer.body)
    wire.use_keys(keys.to_worker, keys.to_client)


def expect_hello(wire: Wire, secret: bytes) -> None:
    """The worker's side, before the first frame."""
    wire.use_keys(b"", hello_key(secret))
    wire.most_body_bytes = NONCE_BYTES


def answer_hello(wire: Wire, frame: Frame, secret: bytes) -> None:
    """The worker's side. Raises WireError for a first frame that is not a hello."""
    if frame.op is not Op.HELLO or len(frame.body) != NONCE_BYTES:
        raise WireError("the first frame is not a hello")
    nonce = new_nonce()
    wire.use_keys(answer_key(secret, frame.body), b"")
    wire.send(Op.HELLO, body=nonce)
    keys = connection_keys(secret, frame.body, nonce)
    wire.use_keys(keys.to_client, keys.to_worker)
    wire.most_body_bytes = MAX_BODY_BYTES
