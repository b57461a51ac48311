"""The baselines behind other systems' calls: which of them a block has, and why it lacks the others."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plumbline.core.run.processes import Member
from plumbline.disaggregation.baselines import ray_actor, torch_rpc
from plumbline.disaggregation.baselines.owner import Owned, Owner
from plumbline.disaggregation.blocks.links import Network
from plumbline.disaggregation.settings import COMPILED, OTHERS, RAY, RPC


@dataclass(frozen=True)
class Others:
    """The baselines of a block, each with a process of its own."""

    names: list[str]
    unavailable: dict[str, str]
    """Those that were asked for and cannot run here -> why."""
    folder: Path
    """For the systems' sockets and logs, with a short path."""

    @classmethod
    def of(cls, asked: Collection[str], folder: Path) -> "Others":
        """Those that are asked for by name."""
        missing = {RPC: torch_rpc.missing(), RAY: ray_actor.missing(), COMPILED: ray_actor.missing()}
        reasons = {name: reason for name, reason in missing.items() if name in asked and reason is not None}
        return cls([name for name in OTHERS if name in asked and name not in reasons], reasons, folder)

    def members(self, between: Network) -> list[Member]:
        """Processes that run beside the client; Ray starts its own."""
        own = partial(torch_rpc.own, between, self._meeting)
        return [Member(work=own, name="owner of rpc", first=True)] if RPC in self.names else []

    @contextmanager
    def owned(self, between: Network, build: Callable[..., Owned], built: dict[str, Any]) -> Iterator[dict[str, Owner]]:
        """An owner by the name of its baseline, to be called as if it were here. The link's ends are up before."""
        with ExitStack() as open_ones:
            owners = {}
            for name in self.names:
                if name == RPC:
                    owner = torch_rpc.owned(between, self._meeting, build, built)
                else:
                    start = ray_actor.compiled if name == COMPILED else ray_actor.owned
                    owner = start(between, self.folder, build, built)
                owners[name] = open_ones.enter_context(owner)
            yield owners

    @property
    def _meeting(self) -> Path:
        return self.folder / RPC
