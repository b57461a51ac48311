"""Network interfaces of links that a test has made."""

import socket
import time
from collections.abc import Iterable

SECONDS = 20.0


def are_gone(names: Iterable[str]) -> bool:
    """Whether none of the interfaces is left; the kernel takes some time to end a namespace."""
    deadline, names = time.monotonic() + SECONDS, set(names)
    while left := names.intersection(name for _, name in socket.if_nameindex()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return not left
