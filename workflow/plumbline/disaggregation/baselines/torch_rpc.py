"""Baseline `rpc`: torch.distributed.rpc. Another process owns the module and its state, and is sent inputs or tokens.

TensorPipe runs over TCP alone, as between machines. Its messages are pickled, so it listens on loopback or on the
block's own link, and nowhere else.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed import rpc

from plumbline.disaggregation.baselines.owner import Owned, Owner
from plumbline.disaggregation.blocks.links import Network

OWNS, ASKS = "owner", "client"
ANSWER_SECONDS = 300.0


def missing() -> str | None:
    """Why this baseline cannot run here; None where it can."""
    return None if rpc.is_available() else "this build of torch has no torch.distributed.rpc"


def own(between: Network, meeting: Path) -> dict[str, Any]:
    """The owner's process: at the worker's end of the link, until the client has gone. meeting: a new file's path."""
    between.join_worker()
    _join(OWNS, 1, between.worker_interface, meeting)
    rpc.shutdown()
    return {"rpc_pid": os.getpid()}


@contextmanager
def owned(between: Network, meeting: Path, build: Callable[..., Owned], built: dict[str, Any]) -> Iterator[Any]:
    """An Owner in the owner's process, to be called as if it were here."""
    _join(ASKS, 0, between.client_interface, meeting)
    owner = rpc.remote(OWNS, Owner, args=(build, built))
    yield owner.rpc_sync()
    del owner
    rpc.shutdown()


def _join(name: str, rank: int, interface: str, meeting: Path) -> None:
    for library in ("TP", "GLOO"):  # TensorPipe, and what the processes meet through
        os.environ[f"{library}_SOCKET_IFNAME"] = interface
    options = rpc.TensorPipeRpcBackendOptions(
        init_method=meeting.as_uri(),
        num_worker_threads=1,
        rpc_timeout=ANSWER_SECONDS,
        _transports=["uv"],
        _channels=["basic"],
    )
    rpc.init_rpc(name, rank=rank, world_size=2, rpc_backend_options=options)
