"""What the study disaggregation's shaped links let through: in a long transfer, and after a pause.

    python tests/benchmarks/bench_links.py --output links.json

For each link and size of its bucket, in turn: 200 MB, then 2 MB and 150 kB after pauses of 3 ms, each until the other
end has it. A bucket that is too small keeps a link below its rate; one that is large lets a step's few packets pass
faster than the rate says. Needs root, `ip` and `tc`. Half a minute.
"""

import argparse
import os
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.core.files import write_json
from plumbline.core.run.processes import Member, run_group
from plumbline.disaggregation.blocks import links

TRANSFERS = {200_000_000: 3, 2_000_000: 20, 150_000: 30}
"""Bytes -> how often."""
TRIED = {"1gbit": ["16kb", "125kb"], "10gbit": ["16kb", "64kb", "125kb"]}
PAUSE_SECONDS = 0.003


def take(between: links.Network) -> None:
    """The other end: answers each transfer once it has all of it."""
    with between.worker_end() as listening:
        connection, _ = listening.accept()
        for size, times in TRANSFERS.items():
            for _ in range(times):
                left = size
                while left:
                    left -= len(connection.recv(min(1 << 20, left)))
                connection.sendall(b"!")


def send(between: links.Network) -> dict[str, list[float]]:
    """Size -> Gbit/s of each transfer."""
    between.client_end()
    host, port = between.address.split(":")
    deadline = time.monotonic() + links.WAIT_SECONDS
    while True:
        try:
            connection = socket.create_connection((host, int(port)), timeout=60)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    found: dict[str, list[float]] = {}
    for size, times in TRANSFERS.items():
        data = bytes(size)
        for _ in range(times):
            time.sleep(PAUSE_SECONDS)
            began = time.perf_counter()
            connection.sendall(data)
            connection.recv(1)
            found.setdefault(str(size), []).append(8e-9 * size / (time.perf_counter() - began))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for link, bursts in TRIED.items():
        for number, burst in enumerate(bursts):
            links.BURSTS[link] = burst
            between = links.Network(link, None, (os.getpid() + number) % 10_000)  # type: ignore[arg-type]
            _, found = run_group([Member(work=partial(take, between)), Member(work=partial(send, between))])
            figures[f"{link}, bucket {burst}"] = found
            told = (
                f"{int(size) / 1e6:g} MB {np.median(rates):.2f} (at most {max(rates):.2f})"
                for size, rates in found.items()
            )
            print(f"{link}, bucket of {burst}, Gbit/s: {', '.join(told)}", flush=True)
    write_json(options.output, {"benchmark": "links", "figures": figures})


if __name__ == "__main__":
    main()
