"""What the meaning of an output lets a graph leave out: positions that nobody reads, logits where a token will do."""

from plumbline.disaggregation.runtime.graphs.graph import Described, Graph, Node, Output, marked, part
from plumbline.disaggregation.runtime.graphs.program import size_of
from plumbline.disaggregation.runtime.models.weights import RefusedError

LINEAR = "aten.linear.default"
END = 2**63 - 1
"""A slice to the end, as aten has it."""


def last_position(graph: Graph, output: str) -> Graph:
    """The graph with only the last position of `output` (rows, positions, width), and none of its own work for others.

    A linear layer in front is computed at that position alone. Raises RefusedError for an output of another shape.
    """
    value = graph.outputs[output].ref
    made = graph.described[value]
    if len(made.shape) != 3:
        raise RefusedError(f"the output {output} has no positions: its shape is {made.shape}")
    producer = next((node for node in graph.nodes if node.name == value), None)
    name = f"{value}_last"
    if producer is None or producer.op != LINEAR:
        return _with(graph, [_sliced(value, name, made)], output, name)
    source = producer.refs[0]
    first = _sliced(source, f"{source}_last", graph.described[source])
    rows, positions, width = made.shape
    stays = sum(size_of(graph.described[ref]) for ref in producer.refs[1:])  # of the layer's weights
    last = Node(
        name=name,
        op=LINEAR,
        args=[{"ref": first.name}, *producer.args[1:]],
        outputs=[Described(dtype=made.dtype, shape=[rows, 1, width])],
        parts=[
            (flops // positions, (moved - stays) // positions + stays) if flops else (0, moved // positions)
            for flops, moved in producer.parts
        ],
    )
    return _with(graph, [first, last], output, name)


def chosen(graph: Graph, output: str, name: str) -> Graph:
    """The graph that gives the greedy token (rows,) of the last position as `name`, and not the logits `output`."""
    value = graph.outputs[output].ref
    made = graph.described[value]
    rows, _, width = made.shape
    row, token = f"{value}_row", f"{value}_token"
    ids = Described(dtype="int64", shape=[rows])
    nodes = [
        Node(
            name=row,
            op="aten.select.int",
            args=[{"ref": value}, 1, -1],
            outputs=[Described(dtype=made.dtype, shape=[rows, width])],
        ),
        Node(
            name=token,
            op="aten.argmax.default",
            args=[{"ref": row}, -1],
            outputs=[ids],
            parts=[(0, size_of(Described(dtype=made.dtype, shape=[rows, width])) + size_of(ids))],
        ),
    ]
    found = _with(graph, nodes, output, token)
    outputs = {name if key == output else key: one for key, one in found.outputs.items()}
    return found.changed(outputs=outputs)


def _sliced(source: str, name: str, made: Described) -> Node:
    rows, _, width = made.shape
    described = Described(dtype=made.dtype, shape=[rows, 1, width])
    return Node(name=name, op="aten.slice.Tensor", args=[{"ref": source}, 1, -1, END], outputs=[described])


def _with(graph: Graph, nodes: list[Node], output: str, name: str) -> Graph:
    """The graph with further nodes, the last of which gives `output`; nodes that nobody reads any more are gone."""
    outputs = graph.outputs | {output: Output(ref=name)}
    return marked(part(graph.changed(nodes=[*graph.nodes, *nodes]), outputs))
