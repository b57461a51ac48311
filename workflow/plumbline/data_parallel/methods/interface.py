"""A method is a module with `METHOD`, a subclass of `Replica`: how ranks share the work of one model."""

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.nn.parallel import DistributedDataParallel

WHOLE = StateDictOptions(full_state_dict=True)
"""States of whole tensors on every rank; with offloading, torch gives them to the first rank alone."""


class Replica:
    """One rank's part of a module in training, and how its gradients meet those of the other ranks.

    Gradients end as the mean over ranks. So a loss that each rank multiplies by world ÷ Σ target tokens of all ranks
    gives the gradient of the mean over all target tokens, however unevenly the ranks hold them.
    """

    bound: float | None = 1e-5
    """Largest difference of any parameter from that of one process, after 20 steps in float32; None: no promise."""
    rounding: float | None = None
    """Largest relative error of rounding a gradient for the wire, from which the proof of equality has a bound in any
    dtype; None: gradients travel as they are."""
    exact = True
    """Whether it reduces in the parameters' own dtype, so that float64 agrees to 1e-10."""
    forgets = True
    """Whether gradients of a backward pass without synchronisation are gone once the optimizer has cleared them."""
    wire_bytes_per_element: int | None = None
    """Bytes of one gradient element on the wire; None: those of the parameters' dtype."""

    def __init__(self, module: nn.Module, group: dist.ProcessGroup | None) -> None:
        """Wraps `module`, on its device, with the weights of the group's first rank. group: None for one process."""
        self.group = group
        self.world = 1 if group is None else dist.get_world_size(group)
        if group is not None:
            broadcast_weights(module, group)
        self.module = self.wrapped(module, group) if group is not None else module

    def wrapped(self, module: nn.Module, group: dist.ProcessGroup) -> nn.Module:
        """The module as the method trains it."""
        raise NotImplementedError

    def without_sync(self) -> AbstractContextManager[Any]:
        """A block whose backward passes add gradients up without a word to the other ranks."""
        if isinstance(self.module, DistributedDataParallel):
            return self.module.no_sync()
        return nullcontext()

    def reduce(self) -> None:
        """Called after a step's last backward pass: reduces what the backward pass has not reduced by itself."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer updates."""
        return list(self.module.parameters())

    def full_weights(self) -> dict[str, Tensor]:
        """The whole module's weights, by the names of the module that was wrapped; called by every rank."""
        weights: dict[str, Any] = get_model_state_dict(self.module, options=WHOLE)
        return weights

    def wire_bytes(self, accumulation: int) -> float:
        """Bytes that a rank sends in a step of so many micro-batches: here one ring all-reduce of the gradients."""
        size = sum(each.numel() * (self.wire_bytes_per_element or each.element_size()) for each in self.parameters)
        return 2 * (self.world - 1) / self.world * size

    @staticmethod
    def probe(group: dist.ProcessGroup, device: torch.device) -> None:
        """Runs what the method needs of the backend, once; raises RuntimeError where the backend cannot."""


def broadcast_weights(module: nn.Module, group: dist.ProcessGroup) -> None:
    """Gives every rank of the group the weights and buffers of its first rank."""
    first = dist.get_global_rank(group, 0)
    for tensor in _tensors(module):
        dist.broadcast(tensor.detach(), src=first, group=group)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def method(name: str) -> type[Replica]:
    """The method called `name`."""
    found: type[Replica] = importlib.import_module(f"{__package__}.{name}").METHOD
    return found


class Single(Replica):
    """One process: nothing to share."""


def replica(name: str, module: nn.Module, group: dist.ProcessGroup | None) -> Replica:
    """The module as method `name` trains it in `group`; as one process does where the group has no other rank."""
    if group is None or dist.get_world_size(group) == 1:
        return Single(module, None)
    return method(name)(module, group)


def memory_bytes(replica: Replica, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes that this rank holds of weights, gradients and optimizer state."""
    held: dict[str, list[Any]] = {"weights": replica.parameters}
    held["gradients"] = [weight.grad for weight in replica.parameters if weight.grad is not None]
    held["optimizer"] = [value for state in optimizer.state.values() for value in state.values()]
    return {name: sum(map(_local_bytes, tensors)) for name, tensors in held.items()}


def _local_bytes(tensor: Any) -> int:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return int(local.numel() * local.element_size())
