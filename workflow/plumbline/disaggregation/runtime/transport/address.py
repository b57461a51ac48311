"""Addresses of workers: HOST:PORT, or [HOST]:PORT for IPv6."""

from plumbline.core.errors import UserError

LOOPBACK = "127.0.0.1"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port; `:7700` is on loopback. Raises UserError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"{text!r}: is not an address; write HOST:PORT, e.g. {LOOPBACK}:7700")
    return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)
