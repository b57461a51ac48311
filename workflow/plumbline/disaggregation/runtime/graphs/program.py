"""A graph that can be run: its operations are looked up, checked on tensors without memory, and called in order."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import one_line
from plumbline.disaggregation.runtime.graphs.graph import Described, Graph, Node, weight_ref
from plumbline.disaggregation.runtime.graphs.operations import (
    DTYPES,
    MAKES_TENSORS,
    decoded,
    filled,
    operation,
    references,
)
from plumbline.disaggregation.runtime.models.weights import RefusedError

META = torch.device("meta")
MOST_TENSOR_BYTES = 1 << 48


@dataclass(frozen=True)
class _Step:
    """One operation, ready to be called."""

    node: Node
    call: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    plain: frozenset[int]
    """Places of arguments that hold no value of the graph, as most do."""
    done: tuple[str, ...]
    """Values that nothing reads afterwards."""


class Program:
    """The operations of a graph on a device. What depends on weights alone is computed once, by `prepare`."""

    def __init__(self, graph: Graph, device: torch.device) -> None:
        """Raises RefusedError for an operation that is not in the list, and for arguments that are not known."""
        self.graph = graph
        self.device = device
        self._once, self._each = _parts(graph, device)

    def prepare(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a call reads besides its inputs: the weights, and all that is computed from them alone."""
        values: dict[str, Any] = {weight_ref(name): weights[name] for name in self.graph.weights}
        _run(self._once, values)
        return values

    @torch.inference_mode()
    def run(self, prepared: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of one call, by name."""
        values = {**prepared, **inputs}
        _run(self._each, values)
        return {name: values[one.ref] for name, one in self.graph.outputs.items()}

    @torch.inference_mode()
    def seconds(self, prepared: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, float]:
        """How long each operation of one call takes, on a CPU."""
        values, found = {**prepared, **inputs}, {}
        for step in self._each:
            began = perf_counter()
            _run([step], values)
            found[step.node.name] = perf_counter() - began
        return found

    def check(self, most_bytes: int) -> int:
        """Bytes that one call takes besides weights and inputs, at most, counted on tensors without memory.

        Raises RefusedError where that is above `most_bytes`, and where an operation refuses its arguments, or gives
        other types or shapes than the graph says.
        """
        values: dict[str, Any] = {
            name: _empty(one) for name, one in self.graph.described.items() if _is_given(self.graph, name)
        }
        taken = most = 0
        sizes: dict[str, int] = {}
        once, each = _parts(self.graph, META)
        for step in [*once, *each]:
            try:
                _run([step], values, frees=False)
            except Exception as error:  # noqa: BLE001  whatever torch says of arguments that a client chose
                raise RefusedError(f"{step.node.name[:80]}: {step.node.op}: {one_line(error)[:200]}") from None
            made = values[step.node.name]
            outputs = list(made) if isinstance(made, (list, tuple)) else [made]
            told = [_plain(one) for one in step.node.outputs]  # what several outputs are is told where they are taken
            if len(told) == 1 and [_description(one) for one in outputs] != told:
                raise RefusedError(f"{step.node.name[:80]}: gives other types or shapes than the graph says")
            sizes[step.node.name] = sum(one.numel() * one.itemsize for one in outputs)
            taken += sizes[step.node.name]
            if (most := max(most, taken)) > most_bytes:
                raise RefusedError(f"the graph takes {most} bytes or more: a call may take {most_bytes}")
            for name in step.done:
                taken -= sizes.pop(name, 0)
                values.pop(name, None)
        return most


def _run(steps: Sequence[_Step], values: dict[str, Any], *, frees: bool = True) -> None:
    """Calls each operation, and keeps what it gives in `values`."""
    for step in steps:
        plain = step.plain
        args = [one if place in plain else filled(one, values) for place, one in enumerate(step.args)]
        kwargs = {key: filled(one, values) for key, one in step.kwargs.items()}
        values[step.node.name] = step.call(*args, **kwargs)
        if frees:
            for name in step.done:
                values.pop(name, None)


def size_of(one: Described) -> int:
    """Bytes. Raises RefusedError for a type that does not travel."""
    if one.dtype not in DTYPES:
        raise RefusedError(f"unknown dtype {one.dtype[:40]!r}")
    return math.prod(one.shape) * DTYPES[one.dtype].itemsize


def _parts(graph: Graph, device: torch.device) -> tuple[list[_Step], list[_Step]]:
    """What is computed once, from weights alone, and what in each call."""
    outputs = {one.ref for one in graph.outputs.values()}
    once = [node for node in graph.nodes if node.residency == "persistent"]
    each = [node for node in graph.nodes if node.residency != "persistent"]
    stays = {node.name for node in once} | {weight_ref(name) for name in graph.weights}
    if changing := [node.name for node in once if not stays.issuperset(node.refs)]:
        raise RefusedError(f"{changing[0][:80]} is said to be persistent, and reads what changes with every call")
    read = {ref for node in each for ref in node.refs} | outputs
    return _steps(once, read, device), _steps(each, outputs | stays, device)


def _steps(nodes: Sequence[Node], kept: set[str], device: torch.device) -> list[_Step]:
    """The nodes with what each is the last to read."""
    last: dict[str, int] = {}
    for number, node in enumerate(nodes):
        last |= dict.fromkeys([node.name, *node.refs], number)
    done: dict[int, list[str]] = {}
    for name, number in last.items():
        if name not in kept:
            done.setdefault(number, []).append(name)
    return [_step(node, tuple(done.get(number, ())), device) for number, node in enumerate(nodes)]


def _step(node: Node, done: tuple[str, ...], device: torch.device) -> _Step:
    args = [decoded(one, device) for one in node.args]
    kwargs = {key: decoded(one, device) for key, one in node.kwargs.items()}
    if node.op in MAKES_TENSORS:
        kwargs["device"] = device
    plain = frozenset(place for place, one in enumerate(node.args) if not references(one))
    return _Step(node, operation(node.op), args, kwargs, plain, done)


def _is_given(graph: Graph, name: str) -> bool:
    return name in graph.inputs or name.startswith("weight:")


def _empty(one: Described) -> Tensor:
    if size_of(one) > MOST_TENSOR_BYTES:
        raise RefusedError(f"a tensor of {size_of(one)} bytes")
    return torch.empty(one.shape, dtype=DTYPES[one.dtype], device=META)


def _description(value: Any) -> tuple[str, list[int]]:
    if not isinstance(value, Tensor):
        return type(value).__name__, []
    return str(value.dtype).removeprefix("torch."), list(value.shape)


def _plain(one: Described) -> tuple[str, list[int]]:
    return one.dtype, one.shape
