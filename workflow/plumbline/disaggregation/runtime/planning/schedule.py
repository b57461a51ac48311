"""Graph + cluster + policy -> plan: which worker runs which part for which rows, what stays there, and what moves.

Each switch of a policy is one thing that the runtime knows of a program's meaning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import cached_property

from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.graphs.graph import Described, Graph, Node, Output, crossing, part
from plumbline.disaggregation.runtime.graphs.rewrites import chosen, last_position
from plumbline.disaggregation.runtime.models.weights import RefusedError
from plumbline.disaggregation.runtime.planning.cost_model import HERE

LOGITS, TOKEN = "logits", "token"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the schedule makes use of."""

    weights_resident: bool = True
    """Weights stay on the workers; else they travel with every call."""
    state_resident: bool = True
    """What the next call wants again stays on the workers; else it travels back."""
    last_logits: bool = True
    """Of the output `logits` only the last position is read."""
    server_sampling: bool = True
    """The worker chooses the token, greedily."""
    wanted_only: bool = True
    """Only the outputs that are asked for come back; else all that the program gives."""
    split: bool = True
    """The rows of a batch do not depend on each other: each worker takes its share."""
    pipeline: bool = True
    """Micro-batches go through stages on several workers, and all of these work at once."""
    branches: bool = True
    """Inputs of different modalities are computed side by side until they meet."""
    direct_hop: bool = True
    """Values go from worker to worker, not through the client."""
    cost_placement: bool = False
    """`placement.placed` may run the program here, or on fewer workers, where the cost model finds that faster."""

    @classmethod
    def of(cls, *names: str) -> "Policy":
        """The policy with only these switches on. Raises UserError for a name that is none."""
        known = [one.name for one in fields(cls)]
        for name in names:
            if name not in known:
                raise UserError(f"policy: no switch {name!r}; there are {', '.join(known)}")
        return cls(**{one.name: one.name in names for one in fields(cls)})

    def without(self, name: str) -> "Policy":
        """The policy with one switch off."""
        return Policy(**{one.name: getattr(self, one.name) and one.name != name for one in fields(self)})


class Route(IntEnum):
    """Where an output goes."""

    DROP = 0
    CLIENT = 1
    KEEP = 2
    """It stays on the worker, in place of what the last call kept under its number."""
    HOP = 3
    """To the worker of the calls that read it."""


@dataclass(frozen=True)
class Made:
    """An input that another call has made."""

    call: int
    output: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """A graph to be run once. Inputs that are not in `made` come from the client."""

    worker: int
    """Its number; HERE for the client's own process, where a plan has one call alone."""
    graph: Graph
    rows: tuple[int, int] | None = None
    """Of the client's inputs, from and to; None: all."""
    made: Mapping[str, Made] = field(default_factory=dict)
    routes: Mapping[str, Route]


@dataclass(frozen=True)
class Plan:
    """Calls, each after those whose outputs it reads; what several calls return under one name is joined by rows."""

    calls: Sequence[Call]
    weights_resident: bool

    @property
    def round_trips(self) -> int:
        """The longest chain of requests each of which waits for the answer to the one before."""
        depth: list[int] = []
        for call in self.calls:
            waits = [
                depth[one.call] + (self.calls[one.call].routes[one.output] is Route.CLIENT)
                for one in call.made.values()
            ]
            depth.append(max(waits, default=0))
        return 1 + max(depth)

    @cached_property
    def inputs(self) -> dict[str, Described]:
        """What the client gives: name -> type and shape, for all rows together."""
        found: dict[str, Described] = {}
        rows = max((call.rows[1] for call in self.calls if call.rows), default=0)
        for call in self.calls:
            for name, one in call.graph.inputs.items():
                if name not in call.made:
                    found[name] = one if call.rows is None else one.model_copy(update={"shape": [rows, *one.shape[1:]]})
        return found

    @property
    def graphs(self) -> dict[tuple[int, bytes], Graph]:
        """Each graph that each worker runs."""
        return {(call.worker, call.graph.id): call.graph for call in self.calls}


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A program at the sizes of batch that it was captured for."""

    graphs: Mapping[int, Graph]
    """By number of rows."""
    rows: int
    """Of a call of the whole."""
    wanted: Sequence[str]
    """Outputs that are asked for."""

    def at(self, rows: int) -> Graph:
        """The graph for so many rows. Raises RefusedError when it was not captured for them."""
        if rows not in self.graphs:
            raise RefusedError(f"the program was captured for {sorted(self.graphs)} rows, not for {rows}")
        return self.graphs[rows]


def schedule(
    program: Captured,
    policy: Policy,
    *,
    workers: int = 2,
    micro_batches: int = 1,
    seconds: Mapping[str, float] | None = None,
    home: int = 0,
) -> Plan:
    """The plan of a call of the whole program.

    micro_batches: how many a pipeline takes. seconds: of each node, measured; None: costs are counted in FLOPs. home:
    the worker that runs what is not spread. Raises RefusedError for a program that cannot be spread as the policy says.
    """
    if policy.split:
        share = program.rows // workers
        graph, routes = _needed(program.at(share), program.wanted, policy)
        calls = [
            Call(worker=worker, graph=graph, rows=(worker * share, (worker + 1) * share), routes=routes)
            for worker in range(workers)
        ]
    elif policy.pipeline:
        calls = _pipeline(program, policy, workers, micro_batches, seconds)
    elif policy.branches:
        calls = _branches(program, policy, workers, home)
    else:
        graph, routes = _needed(program.at(program.rows), program.wanted, policy)
        calls = [Call(worker=home, graph=graph, routes=routes)]
    return Plan(calls, policy.weights_resident)


def here(program: Captured) -> Plan:
    """The plan of a call in the client's own process, which computes no more than is asked for."""
    policy = Policy.of("weights_resident", "state_resident", "last_logits", "server_sampling", "wanted_only")
    return schedule(program, policy, home=HERE)


def one_by_one(program: Captured, policy: Policy, micro_batches: int, home: int = 0) -> Plan:
    """The micro-batches of a pipeline on one worker, a call each: what `schedule` gives where nothing is pipelined."""
    rows = _share(program, micro_batches)
    graph, routes = _needed(program.at(rows), program.wanted, policy)
    calls = [
        Call(worker=home, graph=graph, rows=(number * rows, (number + 1) * rows), routes=routes)
        for number in range(micro_batches)
    ]
    return Plan(calls, policy.weights_resident)


def staged(program: Captured, policy: Policy, seconds: Mapping[str, float] | None = None, workers: int = 2) -> Plan:
    """The stages of a pipeline one after another, for the whole batch at once."""
    return Plan(_pipeline(program, policy, workers, 1, seconds), policy.weights_resident)


def _needed(graph: Graph, wanted: Sequence[str], policy: Policy) -> tuple[Graph, dict[str, Route]]:
    """The graph with the outputs that the policy lets it have, and where each goes."""
    outputs = {
        name: one
        for name, one in graph.outputs.items()
        if name in wanted or one.residency == "state" or not policy.wanted_only
    }
    graph = part(graph, outputs)
    if policy.last_logits and LOGITS in outputs:
        graph = last_position(graph, LOGITS)
    if policy.server_sampling and LOGITS in outputs:
        graph = chosen(graph, LOGITS, TOKEN)
    routes = {}
    for name, one in graph.outputs.items():
        stays = one.residency == "state" and policy.state_resident
        routes[name] = Route.KEEP if stays else Route.CLIENT
    return graph, routes


def cut(graph: Graph, seconds: Mapping[str, float] | None = None) -> int:
    """After how many nodes to cut the graph in two parts that take about as long, where a single value crosses.

    Raises RefusedError when there is no such place.
    """
    costs = [_cost(node, seconds) for node in graph.nodes]
    total, before, best = sum(costs), 0.0, (float("inf"), 0)
    for number, cost in enumerate(costs[:-1], start=1):
        before += cost
        if (longest := max(before, total - before)) < best[0] and _is_single(graph, number):
            best = (longest, number)
    if not best[1]:
        raise RefusedError("the graph has no place where a single value crosses: it cannot be cut in two")
    return best[1]


def _is_single(graph: Graph, count: int) -> bool:
    values = crossing(graph, count)
    return len(values) == 1 and values[0] in graph.described


def _cost(node: Node, seconds: Mapping[str, float] | None) -> float:
    return float(node.flops) if seconds is None else seconds.get(node.name, 0.0)


def _pipeline(
    program: Captured, policy: Policy, workers: int, micro_batches: int, seconds: Mapping[str, float] | None
) -> list[Call]:
    if workers != 2:
        raise RefusedError(f"a pipeline takes 2 workers, not {workers}")
    rows = _share(program, micro_batches)
    graph, routes = _needed(program.at(rows), program.wanted, policy)
    count = cut(graph, seconds)
    (value,) = crossing(graph, count)
    first, second = part(graph, {value: Output(ref=value)}), part(graph, graph.outputs, [value])
    hop = Route.HOP if policy.direct_hop else Route.CLIENT
    calls = []
    for number in range(micro_batches):
        where = (number * rows, (number + 1) * rows)
        calls.append(Call(worker=0, graph=first, rows=where, routes={value: hop}))
        calls.append(Call(worker=1, graph=second, rows=where, made={value: Made(2 * number, value)}, routes=routes))
    return calls


def _share(program: Captured, micro_batches: int) -> int:
    """Rows of a micro-batch."""
    if program.rows % micro_batches:
        raise RefusedError(f"{micro_batches} micro-batches do not divide {program.rows} rows")
    return program.rows // micro_batches


def _branches(program: Captured, policy: Policy, workers: int, home: int) -> list[Call]:
    """A call for each modality, on the workers in turn, and one at home for where they meet.

    The longest is asked for first: a client that shares a core with a worker may be held up once that one has work.
    """
    graph, routes = _needed(program.at(program.rows), program.wanted, policy)
    modalities = list(dict.fromkeys(one.modality for one in graph.inputs.values()))
    calls: list[Call] = []
    given: dict[str, Made] = {}
    done: set[str] = set()
    branches = []
    for number, modality in enumerate(modalities):
        worker = (home + number) % workers
        stays = policy.direct_hop if worker != home else policy.state_resident
        outputs, ways = _branch(graph, modality, routes, Route.HOP if stays else Route.CLIENT)
        branches.append((outputs, Call(worker=worker, graph=part(graph, outputs), routes=ways)))
    for outputs, call in sorted(branches, key=lambda one: -one[1].graph.flops):
        given |= {one.ref: Made(len(calls), name) for name, one in outputs.items() if name not in routes}
        done |= outputs.keys() & routes.keys()
        calls.append(call)
    rest = {name: one for name, one in graph.outputs.items() if name not in done}
    fusion = part(graph, rest, list(given))
    made = {name: one for name, one in given.items() if name in fusion.inputs}
    calls.append(Call(worker=home, graph=fusion, made=made, routes={name: routes[name] for name in rest}))
    return calls


def branch(program: Captured, modality: str, policy: Policy, worker: int) -> Plan:
    """The part of one modality alone, whose values come back."""
    graph, routes = _needed(program.at(program.rows), program.wanted, policy)
    outputs, ways = _branch(graph, modality, routes, Route.CLIENT)
    return Plan([Call(worker=worker, graph=part(graph, outputs), routes=ways)], policy.weights_resident)


def _branch(
    graph: Graph, modality: str, routes: Mapping[str, Route], route: Route
) -> tuple[dict[str, Output], dict[str, Route]]:
    """What a modality alone gives: values that others read, which go by `route`, and outputs of the whole."""
    own = {node.name for node in graph.nodes if node.modality == modality}
    others = [node for node in graph.nodes if node.name not in own]
    read = dict.fromkeys(ref for node in others for ref in node.refs if ref in own)
    given = {name: one for name, one in graph.outputs.items() if one.ref in own}
    outputs = {ref: Output(ref=ref) for ref in read} | given
    return outputs, dict.fromkeys(read, route) | {name: routes[name] for name in given}
