"""Captures a PyTorch module as a graph of aten operations, once for each model, phase, dtype and shape.

With `torch.export`, which PyTorch keeps for this purpose: it names weights as the state dict does, removes what writes
into its inputs, and refuses programs whose flow depends on values. A recorder (`TorchDispatchMode`) would take such a
program's one path for the program, and sees neither names nor inputs. No operation is decomposed: the graph holds the
operations that the module calls, so that both run the same kernels.
"""

import operator
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from plumbline.disaggregation.runtime.graphs.graph import (
    Described,
    Graph,
    Input,
    Node,
    Output,
    marked,
    part,
    weight_ref,
)
from plumbline.disaggregation.runtime.graphs.operations import GETITEM, encoded, operation
from plumbline.disaggregation.runtime.models.weights import RefusedError

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node as FxNode

ASSERTIONS = ("aten._assert_tensor_metadata.default", "aten._assert_scalar.default")
"""Of a graph that holds for one shape, they say nothing."""


def capture(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    model: str,
    phase: str,
    modalities: Mapping[str, str] | None = None,
    states: Collection[str] = (),
) -> tuple[Graph, dict[str, Tensor]]:
    """The graph of `module(**inputs)`, which holds for these shapes and types, and the weights that it reads.

    outputs: names for what the module returns, a tensor or a tuple of them. modalities: of inputs, e.g. `image`.
    states: names of outputs that the next call will want again.
    Raises RefusedError for a program that a graph cannot hold.
    """
    from torch.export import export

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own modules
        program = export(module.eval(), (), dict(inputs), strict=False).run_decompositions({})
    return _graph_of(program, inputs, outputs, model, phase, modalities or {}, states)


def _graph_of(
    program: "ExportedProgram",
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    model: str,
    phase: str,
    modalities: Mapping[str, str],
    states: Collection[str],
) -> tuple[Graph, dict[str, Tensor]]:
    from torch.export.graph_signature import InputKind, OutputKind

    signature, names = program.graph_signature, iter(inputs)
    values: dict[str, str] = {}
    weights: dict[str, Tensor] = {}
    constants: list[Node] = []
    for one in signature.input_specs:
        if one.kind is InputKind.USER_INPUT:
            values[one.arg.name] = next(names)
            continue
        name = str(one.target)
        is_saved = name in program.state_dict
        held = program.state_dict if is_saved else program.constants
        if not is_saved and held[name].numel() <= 1:
            constants.append(_constant(one.arg.name, held[name]))
        else:
            weights[name] = held[name].detach()
            values[one.arg.name] = weight_ref(name)
    for given in signature.output_specs:
        if given.kind is not OutputKind.USER_OUTPUT:
            raise RefusedError(f"the module changes {given.target}: a graph cannot hold that")
    nodes = [*constants, *(_node(one, values) for one in program.graph.nodes if _is_kept(one))]
    found = {
        name: Output(
            ref=values.get(given.arg.name, given.arg.name), residency="state" if name in states else "ephemeral"
        )
        for name, given in zip(outputs, signature.output_specs, strict=True)
    }
    graph = Graph(
        model=model,
        phase=phase,
        inputs={name: Input(**_described(one), modality=modalities.get(name, "")) for name, one in inputs.items()},
        weights={name: Described(**_described(one)) for name, one in weights.items()},
        nodes=nodes,
        outputs=found,
    )
    graph = marked(part(graph, found))
    return graph, {name: weights[name] for name in graph.weights}


def _constant(name: str, tensor: Tensor) -> Node:
    """A number, or nothing, that the program holds as a tensor."""
    number = tensor.item() if tensor.numel() else 0
    value, dtype = (encoded(one, lambda _: None) for one in (number, tensor.dtype))
    described = Described(**_described(tensor))
    args = [described.shape, value]
    return Node(name=name, op="aten.full.default", args=args, kwargs={"dtype": dtype}, outputs=[described])


def _is_kept(node: "FxNode") -> bool:
    return node.op == "call_function" and _name(node) not in ASSERTIONS


def _name(node: "FxNode") -> str:
    """The operation of a node. Views become reshapes: how an output lies in memory differs between devices."""
    name = GETITEM if node.target is operator.getitem else str(node.target)
    return "aten.reshape.default" if name == "aten.view.default" else name


def _node(node: "FxNode", values: Mapping[str, str]) -> Node:
    """A node of the graph. Raises RefusedError for an operation that is not in the list."""
    from torch.fx import Node as FxNode

    operation(_name(node))

    def reference(value: Any) -> dict[str, str] | None:
        return {"ref": values.get(value.name, value.name)} if isinstance(value, FxNode) else None

    kwargs = {
        key: encoded(value, reference) for key, value in node.kwargs.items() if key not in ("pin_memory", "layout")
    }
    made = node.meta["val"]
    outputs = list(made) if isinstance(made, (list, tuple)) else [made]
    return Node(
        name=node.name,
        op=_name(node),
        args=encoded(list(node.args), reference),
        kwargs=kwargs,
        outputs=[Described(**_described(one)) for one in outputs],
        parts=_parts(node),
    )


class _Parts(TorchDispatchMode):
    """Notes the FLOPs and bytes of every operation that runs under it, views excepted."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, int]] = []

    def __torch_dispatch__(self, called: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """FLOPs are multiplications and additions, of products and convolutions, as torch's own counter has them."""
        made = called(*args, **(kwargs or {}))
        read = list({id(one): one for one in _tensors([args, kwargs])}.values())
        outputs = _tensors(made)
        memories = {one.untyped_storage()._cdata for one in read}
        if any(one.untyped_storage()._cdata not in memories for one in outputs):
            count = flop_registry.get(called._overloadpacket)
            flops = count(*args, **(kwargs or {}), out_val=made) if count else 0
            self.found.append((int(flops), sum(one.nbytes for one in [*read, *outputs])))
        return made


def _tensors(value: Any) -> list[Tensor]:
    return [one for one in tree_leaves(value) if isinstance(one, Tensor)]


def _parts(node: "FxNode") -> list[tuple[int, int]]:
    """What an operation consists of: attention of products, a softmax and what lies between, most of but themselves.

    Run on tensors without memory, for which torch has no fused kernels.
    """
    from torch.fx.node import map_arg

    if node.target is operator.getitem:
        return []

    def on_meta(value: Any) -> Any:
        return map_arg(value, lambda one: _meta(one.meta["val"]))

    args = on_meta(tuple(node.args))
    keywords = {**on_meta(dict(node.kwargs)), **({"device": "meta"} if "device" in node.kwargs else {})}
    with _Parts() as parts:
        node.target(*args, **keywords)  # type: ignore[operator]
    return parts.found


def _meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return [_meta(one) for one in value]


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
