"""The graph of a captured program: its operations with phase, residency, modality and cost, as JSON with a schema.

`Graph.model_json_schema()` is the schema. A graph is data: names of operations, references to values, constants.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from plumbline.core.errors import UserError, one_line
from plumbline.core.settings import Settings, validated
from plumbline.disaggregation.runtime.graphs.operations import references
from plumbline.disaggregation.runtime.models.weights import RefusedError
from plumbline.disaggregation.runtime.transport.protocol import WireError, json_object

Residency = Literal["persistent", "state", "ephemeral"]
"""`persistent`: weights, and what is computed from them alone. `state`: what the next call will want again.
`ephemeral`: all else."""
MOST_NODES = 1 << 16
Name = Annotated[str, Field(max_length=200)]
Size = Annotated[int, Field(ge=0, lt=1 << 48)]


class Described(Settings):
    """Type and shape of a tensor."""

    dtype: Name
    shape: Annotated[list[Size], Field(max_length=8)]


class Input(Described):
    """A tensor that a call brings."""

    modality: Name = ""
    """Such as `image` or `text`."""


class Output(Settings):
    """A tensor that a call gives."""

    ref: Name
    residency: Residency = "ephemeral"


class Node(Settings):
    """One operation."""

    name: Name
    """Of its value. Where it has several outputs, `getitem` nodes take them out."""
    op: Name
    args: list[Any]
    kwargs: dict[Name, Any] = {}
    outputs: Annotated[list[Described], Field(max_length=64)]
    residency: Residency = "ephemeral"
    modality: Name = ""
    """Of the inputs that it depends on; `fusion` where it depends on several."""
    parts: Annotated[list[tuple[Size, Size]], Field(max_length=256)] = []
    """FLOPs, and bytes read and written, of each operation that it consists of; a view has none."""

    @cached_property
    def refs(self) -> list[str]:
        """Names of the values that it reads."""
        return references([self.args, list(self.kwargs.values())])

    @property
    def flops(self) -> int:
        """Of all its parts."""
        return sum(flops for flops, _ in self.parts)


class Graph(Settings):
    """A program as a list of operations, each after those that it reads."""

    schema_version: Literal[1] = 1
    model: Name
    phase: Name
    """Such as `prefill`, `decode` or `forward`."""
    inputs: dict[Name, Input]
    weights: dict[Name, Described]
    """By their names in the model's state dict; referred to as `weight:NAME`."""
    nodes: Annotated[list[Node], Field(max_length=MOST_NODES)]
    outputs: dict[Name, Output]

    def changed(self, **changes: Any) -> "Graph":
        """The graph with other values of some fields; nothing that was computed from the old ones is kept."""
        return Graph.model_validate({name: getattr(self, name) for name in Graph.model_fields} | changes)

    @property
    def json_text(self) -> str:
        """Canonical: equal graphs give equal text."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> bytes:
        """SHA-256 of the canonical JSON: what travels once the other side has the graph."""
        return hashlib.sha256(self.json_text.encode()).digest()

    @property
    def flops(self) -> int:
        """Of a call; what depends on weights alone is computed once and does not count."""
        return sum(node.flops for node in self.nodes if node.residency != "persistent")

    @cached_property
    def described(self) -> dict[str, Described]:
        """Type and shape of each value that is a single tensor, weights and inputs included."""
        found: dict[str, Described] = {weight_ref(name): one for name, one in self.weights.items()}
        found |= self.inputs
        return found | {node.name: node.outputs[0] for node in self.nodes if len(node.outputs) == 1}


def weight_ref(name: str) -> str:
    """How a node refers to a weight."""
    return f"weight:{name}"


def parsed(text: bytes) -> Graph:
    """The graph in JSON. Raises RefusedError when it does not follow the schema, or refers to what is not there."""
    try:
        graph = validated(Graph, json_object(text), "the graph does not follow its schema")
    except (UserError, WireError) as error:
        raise RefusedError(one_line(error)[:400]) from None
    known = {weight_ref(name) for name in graph.weights}
    for name in [*graph.inputs, *(node.name for node in graph.nodes)]:
        if ":" in name:
            raise RefusedError(f"the graph's value {name[:80]!r} has the name of a weight")
    known |= graph.inputs.keys()
    for node in graph.nodes:
        if missing := [name for name in node.refs if name not in known]:
            raise RefusedError(f"the graph's node {node.name[:80]} reads {missing[0][:80]!r}, which is not there yet")
        if node.name in known:
            raise RefusedError(f"the graph has two values called {node.name[:80]!r}")
        known.add(node.name)
    if missing := [one.ref for one in graph.outputs.values() if one.ref not in known]:
        raise RefusedError(f"the graph's output {missing[0][:80]!r} is not there")
    return graph


def part(graph: Graph, outputs: Mapping[str, Output], given: Collection[str] = ()) -> Graph:
    """What `graph` has to compute for `outputs`, with the values `given` as inputs instead of computed."""
    wanted = {one.ref for one in outputs.values()} - set(given)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            kept.append(node)
            wanted |= set(node.refs) - set(given)
    kept.reverse()
    read = wanted | {one.ref for one in outputs.values()} | {ref for node in kept for ref in node.refs}
    modality = {node.name: node.modality for node in graph.nodes}
    inputs = {name: one for name, one in graph.inputs.items() if name in read}
    for name in given:
        if name in read and name not in inputs:
            known = graph.described[name]
            inputs[name] = Input(dtype=known.dtype, shape=known.shape, modality=modality.get(name, ""))
    weights = {name: one for name, one in graph.weights.items() if weight_ref(name) in read}
    return graph.changed(inputs=inputs, weights=weights, nodes=kept, outputs=dict(outputs))


def marked(graph: Graph) -> Graph:
    """The graph with residency and modality of each node, found from its inputs, weights and outputs."""
    modalities: dict[str, frozenset[str]] = {name: frozenset([one.modality]) for name, one in graph.inputs.items()}
    state = {one.ref for one in graph.outputs.values() if one.residency == "state"}
    depends = set(graph.inputs)
    nodes = []
    for node in graph.nodes:
        of = frozenset[str]().union(*(modalities.get(ref, frozenset()) for ref in node.refs)) - {""}
        modalities[node.name] = of
        residency: Residency = "state" if node.name in state else "ephemeral"
        if depends.isdisjoint(node.refs):
            residency = "persistent"
        else:
            depends.add(node.name)
        modality = "fusion" if len(of) > 1 else "".join(of)
        nodes.append(node.model_copy(update={"residency": residency, "modality": modality}))
    return graph.changed(nodes=nodes)


def crossing(graph: Graph, count: int) -> list[str]:
    """Values that the nodes after the first `count` read, or the program gives, and that stand before; no weights."""
    persistent = {node.name for node in graph.nodes if node.residency == "persistent"}
    before = {*graph.inputs, *(node.name for node in graph.nodes[:count])} - persistent
    after = [ref for node in graph.nodes[count:] for ref in node.refs]
    return _distinct(ref for ref in [*after, *(one.ref for one in graph.outputs.values())] if ref in before)


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
