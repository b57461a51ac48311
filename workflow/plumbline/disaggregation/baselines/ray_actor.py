"""Baselines `ray` and `ray_compiled`: an actor builds the module itself, keeps its state, and is sent inputs or tokens.

`ray` calls the actor's methods; `ray_compiled` compiles the step once into one of Ray's graphs, whose calls go through
memory that is kept for them. On a shaped link, a second node of Ray runs at the worker's end, and has the actors.

Ray is an extra of its own (`pip install plumbline[ray]`): where it is not installed, the baselines are unavailable.
Starting Ray and the actors stands outside the timed turns. Its messages are pickled, so it listens on loopback or on
the block's own link, and nowhere else.
"""

import copy
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from plumbline.disaggregation.baselines.owner import Owned, Owner
from plumbline.disaggregation.blocks.links import Network

STORE_BYTES = 512 << 20
"""Of Ray's shared memory, taken as it is used: the largest inputs of presets/osdi.yaml, 134 MB, fit more than once."""
ACTORS = 2
"""The most that a block has."""
FAR = "far"
"""What the node at the worker's end is known by."""
NODE_SECONDS = 120.0
START = "from ray.scripts.scripts import main; main()"
"""What the command `ray` runs, which need not be on the path."""


def missing() -> str | None:
    """Why these baselines cannot run here; None where they can."""
    return None if find_spec("ray") else "the package ray is not installed; pip install 'plumbline[ray]'"


class Called:
    """An actor's methods, called as if it were here."""

    def __init__(self, actor: Any, get: Callable[[Any], Any]) -> None:
        self._actor = actor
        self._get = get

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, name)

    def _call(self, name: str, *values: Any) -> Any:
        return self._get(getattr(self._actor, name).remote(*values))


class Compiled:
    """An actor's step as a compiled graph, called as if it were here. The actor takes no other calls meanwhile."""

    def __init__(self, actor: Any, get: Callable[[Any], Any]) -> None:
        from ray.dag import InputNode

        self._get = get
        self._process, self._threads = get([actor.process.remote(), actor.threads.remote()])
        with InputNode() as value:
            self._graph = actor.step.bind(value).experimental_compile()

    def step(self, value: Any) -> Any:
        """As `Owner.step`."""
        return copy.deepcopy(self._get(self._graph.execute(value)))  # what it was is overwritten by the next call

    def process(self) -> int:
        """The id of the process that computes."""
        return int(self._process)

    def threads(self) -> int:
        """How many threads it computes with."""
        return int(self._threads)

    def close(self) -> None:
        """Ends the graph."""
        self._graph.teardown()


@contextmanager
def owned(between: Network, folder: Path, build: Callable[..., Owned], built: dict[str, Any]) -> Iterator[Called]:
    """An Owner in an actor's process. folder: for Ray's sockets and logs, with a short path."""
    with _running(between, folder) as (start, get):
        yield Called(start(Owner).remote(build, built), get)


@contextmanager
def compiled(between: Network, folder: Path, build: Callable[..., Owned], built: dict[str, Any]) -> Iterator[Compiled]:
    """The same, whose step is compiled."""
    with _running(between, folder) as (start, get):
        step = Compiled(start(Owner).remote(build, built), get)
        try:
            yield step
        finally:
            step.close()


@contextmanager
def _running(between: Network, folder: Path) -> Iterator[tuple[Callable[[Any], Any], Callable[[Any], Any]]]:
    """What makes a class an actor at the worker's end, and what waits for its answers; Ray is started if it must be."""
    import ray

    where = {} if between.listening is not None else {"resources": {FAR: 1}}
    start = ray.remote(num_cpus=1, **where)
    if ray.is_initialized():
        yield start, ray.get
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else it makes one, and keeps it in the user's home
    ray.init(
        num_cpus=ACTORS,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=STORE_BYTES,
        _node_ip_address=between.client_host,
        _temp_dir=str(folder),
    )
    far = _far_node(between, ray) if where else None
    try:
        yield start, ray.get
    finally:
        ray.shutdown()
        if far is not None:
            _end(far)


def _end(far: "subprocess.Popen[bytes]") -> None:
    """Ends the node with all that it has started; asked to end, it would wait 30 s for the other node."""
    for one in psutil.Process(far.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            one.kill()
    far.kill()
    far.wait()


def _far_node(between: Network, ray: Any) -> "subprocess.Popen[bytes]":
    """A node of Ray at the worker's end, once it has joined. Raises TimeoutError."""
    options = {"address": ray.get_runtime_context().gcs_address, "node-ip-address": between.worker_host}
    options |= {"num-cpus": str(ACTORS), "resources": json.dumps({FAR: ACTORS})}
    options |= {"object-store-memory": str(STORE_BYTES)}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-c", START, "start", "--block", "--disable-usage-stats", *arguments]
    far = subprocess.Popen(command, preexec_fn=between.join_worker, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + NODE_SECONDS
    while FAR not in ray.cluster_resources():
        if far.poll() is not None or time.monotonic() > deadline:
            far.kill()
            raise TimeoutError(f"no node of Ray at the worker's end after {NODE_SECONDS:g} s")
        time.sleep(0.1)
    return far
