"""What a plan takes, counted from its graphs: the input of the cost model."""

from collections import Counter
from collections.abc import Collection, Mapping

from plumbline.disaggregation.runtime.graphs.graph import Described, Graph
from plumbline.disaggregation.runtime.graphs.program import size_of
from plumbline.disaggregation.runtime.planning.cost_model import HERE, CallDemand, Demands, Work
from plumbline.disaggregation.runtime.planning.schedule import Plan, Route


def demands(plans: Mapping[str, Plan]) -> Demands:
    """Of each plan by its name."""
    graphs = {_key(call.graph): call.graph for plan in plans.values() for call in plan.calls}
    work = {name: work_of(graph) for name, graph in graphs.items()}
    return Demands(work=work, plans={name: calls_of(plan) for name, plan in plans.items()})


def work_of(graph: Graph) -> Work:
    """The operations of one call of a graph."""
    each = [node.parts for node in graph.nodes if node.residency != "persistent" and node.parts]
    counts = Counter(part for parts in each for part in parts)
    return Work(operations=len(each), parts=[(*part, count) for part, count in sorted(counts.items())])


def calls_of(plan: Plan) -> list[CallDemand]:
    """Each call of a plan: what it sends, and what it waits for."""
    calls, found = plan.calls, []
    crossing = {
        (made.call, made.output)
        for call in calls
        for made in call.made.values()
        if calls[made.call].worker != call.worker
    }
    has_weights: set[tuple[int, bytes]] = set()
    for number, call in enumerate(calls):
        if call.worker == HERE:
            found.append(CallDemand(worker=HERE, work=_key(call.graph)))
            continue
        through = {name for name, made in call.made.items() if calls[made.call].routes[made.output] is Route.CLIENT}
        sent: list[Described] = [
            one for name, one in call.graph.inputs.items() if name not in call.made or name in through
        ]
        bring = {} if plan.weights_resident or (call.worker, call.graph.id) in has_weights else call.graph.weights
        if bring:
            has_weights.add((call.worker, call.graph.id))
            sent += bring.values()
        hopping = {name for name, route in call.routes.items() if route is Route.HOP and (number, name) in crossing}
        found.append(
            CallDemand(
                worker=call.worker,
                work=_key(call.graph),
                requests=2 if bring else 1,
                sent_bytes=sum(map(size_of, sent)),
                returned_bytes=_bytes(call.graph, {key for key, one in call.routes.items() if one is Route.CLIENT}),
                hop_bytes=_bytes(call.graph, hopping),
                waits=sorted({made.call for name, made in call.made.items() if name in through}),
                hops=sorted(
                    {
                        made.call
                        for name, made in call.made.items()
                        if name not in through and (made.call, made.output) in crossing
                    }
                ),
                answers=Route.CLIENT in call.routes.values(),
            )
        )
    return found


def _key(graph: Graph) -> str:
    return graph.id.hex()[:16]


def _bytes(graph: Graph, outputs: Collection[str]) -> int:
    """Of these outputs."""
    return sum(size_of(graph.described[graph.outputs[name].ref]) for name in outputs)
