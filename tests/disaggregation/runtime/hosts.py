"""Another host: a network namespace, and a cable to it that can be pulled. Needs root and `ip`."""

import ctypes
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000  # of Linux's sched.h
NUMBERS = count()


class Host:
    """A host besides this one, at the other end of a cable."""

    def __init__(self, stack):
        number = next(NUMBERS)
        self.name, self._subnet = f"h{os.getpid()}-{number}", f"10.{214 + number % 32}.{os.getpid() % 256}"
        _ip("netns", "add", self.name)
        stack.callback(_ip, "netns", "delete", self.name)  # and with it, a little later, both ends of the cable
        _ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("address", "add", f"{self._subnet}.1/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        _ip("-n", self.name, "address", "add", f"{self._subnet}.2/24", "dev", "eth0")
        _ip("-n", self.name, "link", "set", "eth0", "up")

    def listening(self):
        """A socket that listens on that host: it stays there, whatever process uses it."""

        def enter_and_listen():
            with Path(f"/run/netns/{self.name}").open() as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return socket.create_server((f"{self._subnet}.2", 0))

        with ThreadPoolExecutor(1) as thread:  # only this thread moves there
            return thread.submit(enter_and_listen).result()

    def pull_the_cable(self):
        """From now on nothing that either side sends arrives."""
        _ip("-n", self.name, "link", "set", "eth0", "down")


@contextmanager
def another_host():
    with ExitStack() as stack:
        try:
            host = Host(stack)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces are not permitted here: {getattr(error, 'stderr', None) or error}")
        yield host


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
