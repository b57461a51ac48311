"""The client of a workload of captured graphs: every variant, in turns."""

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.core.run.device import torch_device
from plumbline.disaggregation.baselines.others import Others
from plumbline.disaggregation.baselines.programs import Programs
from plumbline.disaggregation.blocks.arms import (
    Arm,
    Behind,
    MeasureGraphsSpec,
    by_protocol,
    ended,
    in_turns,
    introduced,
)
from plumbline.disaggregation.blocks.cores import CLIENT, bound_to
from plumbline.disaggregation.blocks.links import Network
from plumbline.disaggregation.capture import read_graphs
from plumbline.disaggregation.measure import reached
from plumbline.disaggregation.runtime.deployment import Deployment
from plumbline.disaggregation.runtime.graphs.graph import Graph
from plumbline.disaggregation.runtime.graphs.program import Program as Runnable
from plumbline.disaggregation.runtime.models.flat import Weights
from plumbline.disaggregation.runtime.planning.cost_model import HERE
from plumbline.disaggregation.runtime.planning.demands import demands
from plumbline.disaggregation.runtime.planning.schedule import Captured, Plan, Route, here
from plumbline.disaggregation.settings import CAPTURE, FULL, LOCAL, WorkloadName
from plumbline.disaggregation.workload_record import CEILING
from plumbline.disaggregation.workloads import WORKLOADS
from plumbline.disaggregation.workloads.interface import Plans, Program
from plumbline.disaggregation.workloads.outputs import check, expected, local, timed

PROFILES = 5
MOST_WARMED_FLOPS = 2 * 10**9
"""Of a call. Larger ones take tens of milliseconds, in which cold caches do not show, and are not warmed."""


def ask(
    spec: MeasureGraphsSpec,
    between: Network,
    addresses: Sequence[str],
    secret: bytes,
    graphs: Path,
    others: Others,
    name: WorkloadName,
) -> dict[str, Any]:
    """The client. Raises OutcomeError for outputs that are not the local ones."""
    device, workload = torch_device(spec.device), WORKLOADS[name]
    between.client_end()
    with ExitStack() as open_ones:
        built = {"workload": name, "shapes": spec.shapes, "seed": spec.seed, "device": str(device)}
        owners = open_ones.enter_context(others.owned(between, Programs, built))
        known = introduced(owners)
        core = bound_to(CLIENT)  # after Ray's daemons have started, which may run on any core
        program = workload.program(spec.shapes, spec.seed)
        for module in (program.module, program.local):
            module.to(device)
        found, capture_seconds = read_graphs(graphs, name)
        captured = Captured(graphs=found, rows=program.rows, wanted=program.wanted)
        weights = _weights(program, found.values())
        plans = workload.plans(captured, spec.shapes, _node_seconds(found[program.batches[-1]], program, weights))
        remotes = [reached(secret, spec.spin_seconds, address) for address in addresses]
        deployment = Deployment(remotes, weights, device)
        replayed = here(captured)
        loaded = {**plans.variants, **plans.probes, CEILING: _doubled(plans)}
        load_seconds = _load(deployment, addresses, loaded.values())
        deployment.load(replayed)  # whatever `baselines` names: the cost model may place the program here
        loaded[CAPTURE] = replayed
        inputs = {place: one.to(device) for place, one in program.inputs.items()}
        wanted = expected(program, inputs)
        arms = {LOCAL: Arm(run=partial(timed, LOCAL, partial(local, program, inputs), wanted))}
        arms |= _deployed(program, plans, loaded, deployment, wanted)
        for baseline, owner in owners.items():
            arms[baseline] = Behind(owner, between, name, program.inputs).arm(baseline, wanted)
        warms = found[program.rows].flops < MOST_WARMED_FLOPS
        told, is_precise = in_turns(spec, arms, [spec.seed, spec.block, *name.encode()], warms=warms)
        at_end = ended(remotes)
    return (known | at_end) | {
        "client_core": core,
        "arms": told,
        "costs": demands({**plans.variants, CAPTURE: replayed}).model_dump(mode="json"),
        "precise": is_precise,
        "unit": workload.unit,
        "units": program.rows,
        "serial": plans.serial,
        "undivided": plans.undivided,
        "bound": plans.bound,
        "parameters": sum(one.numel() for one in program.module.parameters()),
        "nodes": len(found[program.rows].nodes),
        "capture_seconds": capture_seconds,
        "load_seconds": load_seconds,
    }


def _weights(program: Program, graphs: Iterable[Graph]) -> dict[str, Tensor]:
    """What the graphs read, from the module; buffers that are not saved included."""
    held = {**dict(program.module.named_parameters()), **dict(program.module.named_buffers())}
    held |= program.module.state_dict()
    return {name: held[name].detach() for graph in graphs for name in graph.weights}


def _node_seconds(graph: Graph, program: Program, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """How long each node of a micro-batch takes here: the median of a few runs, after one that warms up."""
    device = next(iter(weights.values())).device
    runnable = Runnable(graph, device)
    prepared = runnable.prepare(Weights.of(weights).to(device).tensors)
    rows = program.batches[-1]
    inputs = {name: one[:rows].to(device) for name, one in program.inputs.items()}
    runs = [runnable.seconds(prepared, inputs) for _ in range(1 + PROFILES)][1:]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def _doubled(plans: Plans) -> Plan:
    """The serial variant on both workers at once, all of the work on each."""
    serial = plans.variants[plans.serial]
    return replace(serial, calls=[*serial.calls, *(replace(call, worker=1 - call.worker) for call in serial.calls)])


def _load(deployment: Deployment, addresses: Sequence[str], plans: Iterable[Plan]) -> float:
    """Seconds to connect the workers with each other, and to bring them what the plans need."""
    began = time.perf_counter()
    for source, target in ((0, 1), (1, 0)):
        deployment.connect_peers(source, target, addresses[target])
    for plan in plans:
        deployment.load(plan)
    return time.perf_counter() - began


def _deployed(
    program: Program,
    plans: Plans,
    loaded: Mapping[str, Plan],
    deployment: Deployment,
    wanted: Mapping[str, Tensor],
) -> dict[str, Arm]:
    """An arm for each plan that is loaded."""
    kinds = dict.fromkeys(plans.probes, "probe") | {CEILING: "ceiling"}
    twice = {key: torch.cat([one, one]) for key, one in wanted.items()}
    warms = partial(deployment.run, loaded[FULL], program.inputs)
    arms = {}
    for name, plan in loaded.items():
        own = {"probe": {}, "ceiling": twice}.get(kinds.get(name, ""), wanted)
        arms[name] = Arm(
            run=partial(timed, name, partial(deployment.run, plan, program.inputs), own),
            kind=kinds.get(name, "variant"),
            warms=None if name == CAPTURE else warms,
            count=partial(by_protocol, deployment.remotes),
            check=partial(_check_kept, name, plan, deployment, wanted),
        )
    return arms


def _check_kept(name: str, plan: Plan, deployment: Deployment, wanted: Mapping[str, Tensor]) -> None:
    """Raises OutcomeError unless what a plan keeps on workers is the local state."""
    number = 0
    for call in plan.calls:
        for output in sorted(call.graph.outputs):
            if call.routes[output] is Route.KEEP and call.worker != HERE:
                rows = slice(None) if call.rows is None else slice(*call.rows)
                check(f"{name}: {output}, which it keeps,", deployment.fetch(call.worker, number), wanted[output][rows])
            number += 1
