"""A round trip of the remote runtime's smallest frames against a raw socket's 8 bytes, and torch's rpc.

    python tests/benchmarks/bench_wire.py --output wire.json [--seconds 60]

Over loopback, each candidate with a peer in a process and on a core of its own, in random order round after round:
raw sockets and authenticated frames, both asleep while they wait and spinning. To reach: frames within 1.6 times the
raw socket's time in both ways; at least 5 times below rpc. A turn is 200 round trips, of rpc 20. About a minute.
"""

import argparse
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from plumbline.core.files import write_json
from plumbline.core.measure.interleave import Candidate, interleave
from plumbline.core.run.orphans import signal_at_death_of_parent
from plumbline.disaggregation.runtime.transport.keys import connection_keys, new_nonce
from plumbline.disaggregation.runtime.transport.protocol import Limits, Op, PeerGoneError
from plumbline.disaggregation.runtime.transport.wire import Wire

TRIPS = 200
RPC_TRIPS = 20
SPIN_SECONDS = 0.001
REST_SECONDS = 0.003
"""Before a turn, so that no peer still spins."""
WAYS = ("asleep", "spinning")
CORES = sorted(os.sched_getaffinity(0))
BODY = struct.Struct("<Ii")
KEYS = connection_keys(bytes(32), new_nonce(), new_nonce())


def read_raw(connection: socket.socket, spin: float) -> bytes:
    """8 bytes, or fewer at the end of the connection."""
    until = time.perf_counter() + spin
    while spin and time.perf_counter() < until:
        try:
            return connection.recv(8, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
    return connection.recv(8)


def serve_raw(connection: socket.socket, spin: float) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := read_raw(connection, spin):
        connection.send(data)


def serve_wire(connection: socket.socket, spin: float) -> None:
    wire = Wire(connection, Limits(spin_seconds=spin))
    wire.use_keys(KEYS.to_client, KEYS.to_worker)
    try:
        while True:
            frame = wire.receive(3600)
            wire.send(Op.DECODE, frame.session, frame.body[4:])
    except PeerGoneError:
        return


def pin(place: int) -> None:
    """Keeps this process on one core: two that share one wake each other cheaply, but cannot both spin."""
    os.sched_setaffinity(0, [CORES[place]])


@contextmanager
def served(serve: Callable[[socket.socket, float], None], spin: float) -> Iterator[socket.socket]:
    """A connection to a fork that serves it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    pid = os.fork()
    if pid == 0:
        try:
            signal_at_death_of_parent(signal.SIGKILL)
            pin(-1)
            client.close()
            serve(server, spin)
        finally:
            os._exit(0)
    server.close()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield client
    finally:
        client.close()
        os.waitpid(pid, 0)


def rested() -> float:
    """The clock after a rest."""
    time.sleep(REST_SECONDS)
    return time.perf_counter()


def raw_trips(connection: socket.socket, spin: float) -> float:
    began = rested()
    for _ in range(TRIPS):
        connection.send(b"12345678")
        read_raw(connection, spin)
    return time.perf_counter() - began


def wire_trips(wire: Wire) -> float:
    began = rested()
    for number in range(TRIPS):
        wire.send(Op.DECODE, 7, BODY.pack(number, 42))
        wire.receive(60)
    return time.perf_counter() - began


def echo(value: bytes) -> bytes:
    return value


def _rpc_worker(port: int) -> None:
    from torch.distributed import rpc

    pin(-1)
    signal_at_death_of_parent(signal.SIGKILL)
    rpc.init_rpc("worker", rank=1, world_size=2, rpc_backend_options=_rpc_options(port))
    rpc.shutdown()


def _rpc_options(port: int) -> object:
    from torch.distributed import rpc

    return rpc.TensorPipeRpcBackendOptions(
        init_method=f"tcp://127.0.0.1:{port}", num_worker_threads=1, _transports=["uv"], _channels=["basic"]
    )


@contextmanager
def rpc_trips() -> Iterator[Callable[[], float]]:
    """Round trips of torch.distributed.rpc, over TCP."""
    from torch.distributed import rpc

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = get_context("spawn").Process(target=_rpc_worker, args=(port,))
    process.start()
    rpc.init_rpc("client", rank=0, world_size=2, rpc_backend_options=_rpc_options(port))

    def trips() -> float:
        began = rested()
        for _ in range(RPC_TRIPS):
            rpc.rpc_sync("worker", echo, args=(b"12345678",))
        return time.perf_counter() - began

    yield trips
    rpc.shutdown()
    process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--no-rpc", action="store_true")
    options = parser.parse_args()
    if len(CORES) < 2:
        parser.error("needs two cores")
    pin(0)
    sleeping, spinning = Limits(), Limits(spin_seconds=SPIN_SECONDS)
    with (
        served(serve_raw, 0.0) as raw_sleep,
        served(serve_raw, SPIN_SECONDS) as raw_spin,
        served(serve_wire, 0.0) as wire_sleep,
        served(serve_wire, SPIN_SECONDS) as wire_spin,
    ):
        wires = {"frame, asleep": Wire(wire_sleep, sleeping), "frame, spinning": Wire(wire_spin, spinning)}
        for wire in wires.values():
            wire.use_keys(KEYS.to_worker, KEYS.to_client)
        others = [
            Candidate(name="raw, spinning", run=lambda: raw_trips(raw_spin, SPIN_SECONDS), work=TRIPS),
            *(
                Candidate(name=name, run=lambda wire=wire: wire_trips(wire), work=TRIPS)  # type: ignore[misc]
                for name, wire in wires.items()
            ),
        ]
        baseline = Candidate(name="raw, asleep", run=lambda: raw_trips(raw_sleep, 0.0), work=TRIPS)
        if options.no_rpc:
            rounds = interleave(baseline, others, seconds=options.seconds, precision=0.01)
        else:
            with rpc_trips() as trips:
                others.append(Candidate(name="torch rpc", run=trips, work=RPC_TRIPS))
                rounds = interleave(baseline, others, seconds=options.seconds, precision=0.01)
    seconds = {name: rounds.seconds[:, place] for place, name in enumerate(rounds.names)}
    for name, taken in seconds.items():
        print(f"{name:16s} {1e6 * np.median(taken):7.1f} µs a round trip, median of {len(taken)} turns")
    ratios = {
        f"frame / raw, {way}": float(np.median(seconds[f"frame, {way}"] / seconds[f"raw, {way}"])) for way in WAYS
    }
    if "torch rpc" in seconds:
        ratios |= {f"rpc / frame, {w}": float(np.median(seconds["torch rpc"] / seconds[f"frame, {w}"])) for w in WAYS}
    for name, ratio in ratios.items():
        print(f"{name:24s} {ratio:.2f}")
    raw = {name: taken.tolist() for name, taken in seconds.items()}
    write_json(options.output, {"benchmark": "wire", "figures": {"ratios": ratios, "seconds_per_round_trip": raw}})


if __name__ == "__main__":
    main()
