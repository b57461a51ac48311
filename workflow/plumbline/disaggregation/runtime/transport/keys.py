"""The shared secret, and the keys of a connection that are derived from it.

Both sides hold the secret. Each sends 32 random bytes; keyed BLAKE2b over both gives a key for each direction, so that
a frame recorded on one connection, or sent back to where it came from, does not pass on another. The MAC is keyed
BLAKE2b as well (RFC 7693), which needs no HMAC construction. Nothing is encrypted.
"""

import os
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.transport.protocol import MAC_BYTES

NONCE_BYTES = 32
LEAST_SECRET_BYTES = 16
MOST_SECRET_BYTES = 64
"""What BLAKE2b takes as a key."""


@dataclass(frozen=True)
class Keys:
    """The two directions of a connection."""

    to_worker: bytes
    to_client: bytes


def new_nonce() -> bytes:
    """32 bytes that nobody can guess."""
    return secrets.token_bytes(NONCE_BYTES)


def hello_key(secret: bytes) -> bytes:
    """The key of a client's first frame, whose MAC shows that it holds the secret."""
    return blake2b(key=secret, person=b"hello").digest()


def answer_key(secret: bytes, client_nonce: bytes) -> bytes:
    """The key of the worker's answer to a hello: its MAC shows that the worker holds the secret, now."""
    return blake2b(client_nonce, key=secret, person=b"answer").digest()


def connection_keys(secret: bytes, client_nonce: bytes, worker_nonce: bytes) -> Keys:
    """The keys that both sides find from the secret and the two nonces."""
    nonces = client_nonce + worker_nonce
    return Keys(
        to_worker=blake2b(nonces, key=secret, person=b"to worker").digest(),
        to_client=blake2b(nonces, key=secret, person=b"to client").digest(),
    )


def keyed(key: bytes) -> blake2b:
    """The state of a MAC under `key`, before any data: copying it is cheaper than making it."""
    return blake2b(key=key, digest_size=MAC_BYTES)


def tagged(state: blake2b, *parts: bytes | memoryview) -> bytes:
    """The 16 bytes of the MAC over the parts, one after another; `state` stays as it is."""
    state = state.copy()
    for part in parts:
        state.update(part)
    return state.digest()


def read_key(path: Path) -> bytes:
    """The secret in the file at `path`, in hexadecimal.

    Raises UserError when it is missing, malformed, or readable by other users.
    """
    try:
        text, mode = path.read_text(encoding="ascii").strip(), path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist; write one with `plumbline worker-key {path}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a key ({error})") from None
    if mode & 0o077:
        raise UserError(f"{path}: other users may read this key; run `chmod 600 {path}`")
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if not LEAST_SECRET_BYTES <= len(secret) <= MOST_SECRET_BYTES:
        raise UserError(
            f"{path}: a key is {LEAST_SECRET_BYTES} to {MOST_SECRET_BYTES} bytes in hexadecimal; "
            f"write one with `plumbline worker-key {path}`"
        )
    return secret


def write_key(path: Path) -> None:
    """Writes a new secret that only this user may read. Raises UserError when the file exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UserError(f"{path}: exists already; delete it if no worker uses it, or name another file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(NONCE_BYTES) + "\n")
