"""Networks between the two processes of a block: loopback, or a veth pair whose rate is limited both ways.

The worker moves into a network namespace without a name, and makes the pair from there; both end with its process,
however that ends. Needs root, `ip` and `tc` (iproute2); elsewhere the link is unavailable.
"""

import ctypes
import os
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from plumbline.core.errors import one_line
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.disaggregation.settings import Link

CLONE_NEWNET = 0x40000000  # of Linux's sched.h
PORT = 7700
BURSTS = {"1gbit": "16kb", "10gbit": "125kb"}
"""What may pass at once after a pause: little, for a step may send no more than a few packets. At either rate it is
what passes in about 100 µs: a smaller bucket is not filled again in time, and lets less than the rate through.
"""
LONGEST_QUEUE = "50ms"
WAIT_SECONDS = 30.0
JOINERS = 2
"""How many further processes may move to the worker's end."""


@dataclass(frozen=True)
class Network:
    """One link, to be set up by both processes. `number` tells it from other links on this machine."""

    link: Link
    listening: socket.socket | None
    """Where the worker listens on loopback."""
    number: int
    announced: tuple[int, int] | None = None
    """A pipe through which the worker tells its process id to whoever is to join it: once for each of `JOINERS`."""

    @property
    def address(self) -> str:
        """Where the client finds the worker."""
        if self.listening is not None:
            return f"127.0.0.1:{self.listening.getsockname()[1]}"
        return f"{self._host(2)}:{PORT}"

    def worker_end(self) -> socket.socket:
        """Sets up the worker's end; where it listens. Raises OutcomeError where the link is unavailable."""
        if self.listening is not None:
            return self.listening
        parent = os.getppid()
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise _unavailable(self.link, os.strerror(ctypes.get_errno()))
        self._run("ip", "link", "set", "lo", "up")  # for what processes at this end have to say to each other
        self._run("ip", "link", "add", "worker", "type", "veth", "peer", "name", self._name, "netns", str(parent))
        self._run("ip", "address", "add", f"{self._host(2)}/30", "dev", "worker")
        self._run("ip", "link", "set", "worker", "up")
        self._limit("worker")
        if self.announced is not None:
            os.write(self.announced[1], struct.pack("<i", os.getpid()) * JOINERS)
        return socket.create_server((self._host(2), PORT))

    def client_end(self) -> None:
        """Waits for the worker's end, and sets up the client's."""
        if self.listening is not None:
            return
        deadline = time.monotonic() + WAIT_SECONDS
        while self._name not in (name for _, name in socket.if_nameindex()):
            if time.monotonic() > deadline:
                raise _unavailable(self.link, f"no interface {self._name} after {WAIT_SECONDS:g} s")
            time.sleep(0.02)
        self._run("ip", "address", "add", f"{self._host(1)}/30", "dev", self._name)
        self._run("ip", "link", "set", self._name, "up")
        self._limit(self._name)

    def join_worker(self) -> None:
        """Moves this process to the worker's end, once that is set up. Each process of a block does so once at most."""
        if self.announced is None:
            return
        (worker,) = struct.unpack("<i", os.read(self.announced[0], 4))
        with Path(f"/proc/{worker}/ns/net").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise _unavailable(self.link, os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        """Closes what `network` has opened in this process, once the processes at both ends are done."""
        if self.listening is not None:
            self.listening.close()
        for end in self.announced or ():
            os.close(end)

    @property
    def client_host(self) -> str:
        """The address of the client's end."""
        return "127.0.0.1" if self.listening is not None else self._host(1)

    @property
    def worker_host(self) -> str:
        """The address of the worker's end."""
        return "127.0.0.1" if self.listening is not None else self._host(2)

    @property
    def worker_interface(self) -> str:
        """The network interface at the worker's end."""
        return "lo" if self.listening is not None else "worker"

    @property
    def client_interface(self) -> str:
        """The network interface at the client's end."""
        return "lo" if self.listening is not None else self._name

    def interface_bytes(self) -> int | None:
        """What has passed the client's end both ways, headers of TCP, IP and Ethernet included.

        None on loopback, which others use as well.
        """
        if self.listening is not None:
            return None
        counters = Path("/sys/class/net", self._name, "statistics")
        return sum(int((counters / f"{way}_bytes").read_text()) for way in ("rx", "tx"))

    @property
    def _name(self) -> str:
        return f"plumb{self.number}"

    def _host(self, end: int) -> str:
        return f"10.213.{(self.number >> 6) & 255}.{(self.number & 63) * 4 + end}"

    def _limit(self, device: str) -> None:
        shaped = ["rate", self.link, "burst", BURSTS[self.link], "latency", LONGEST_QUEUE]
        self._run("tc", "qdisc", "add", "dev", device, "root", "tbf", *shaped)

    def _run(self, *command: str) -> None:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise _unavailable(self.link, f"there is no {command[0]}") from None
        except subprocess.CalledProcessError as error:
            raise _unavailable(
                self.link, f"{' '.join(command[:4])}: {error.stderr.strip() or one_line(error)}"
            ) from None


def network(link: Link) -> Network:
    """The link of this process's children, to be closed. On loopback, a socket that listens is made here."""
    listening = socket.create_server(("127.0.0.1", 0)) if link == "loopback" else None
    return Network(link, listening, os.getpid(), None if listening else os.pipe())


def _unavailable(link: str, reason: str) -> OutcomeError:
    return OutcomeError(Outcome.UNAVAILABLE, f"a link of {link} cannot be made here: {reason}")
