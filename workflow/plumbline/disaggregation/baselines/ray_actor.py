"""Baseline `ray`: an actor that builds the model itself and keeps keys and values, and is sent tokens.

Ray is an extra of its own (`pip install plumbline[ray]`): where it is not installed, the baseline is unavailable.
Starting Ray and the actor stands outside the timed turns. Its messages are pickled, so it listens on loopback alone.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plumbline.disaggregation.baselines.decoder import Decoder
from plumbline.disaggregation.links import Network

STORE_BYTES = 100 << 20  # of Ray's shared memory, which tokens do not need


def missing(between: Network) -> str | None:
    """Why this baseline cannot run here; None where it can."""
    if find_spec("ray") is None:
        return "the package ray is not installed; pip install 'plumbline[ray]'"
    if between.listening is None:
        return "its daemons run on loopback alone, not at both ends of a link"
    return None


class Called:
    """An actor's methods, called as if it were here."""

    def __init__(self, actor: Any, get: Callable[[Any], Any]) -> None:
        self._actor = actor
        self._get = get

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, name)

    def _call(self, name: str, *values: Any) -> Any:
        return self._get(getattr(self._actor, name).remote(*values))


class Owner(Decoder):
    """The actor: a Decoder that builds its model in its own process."""

    def __init__(self, built: dict[str, Any]) -> None:
        super().__init__(Decoder.built(**built).held)


@contextmanager
def owned(folder: Path, **built: Any) -> Iterator[Called]:
    """A Decoder in an actor's process. folder: for Ray's sockets and logs, with a short path."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else it makes one, and keeps it in the user's home
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder),
    )
    try:
        yield Called(ray.remote(num_cpus=1)(Owner).remote(built), ray.get)
    finally:
        ray.shutdown()
