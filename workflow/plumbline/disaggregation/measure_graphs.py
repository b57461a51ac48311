"""Stage `disaggregation.measure_graphs`: one block of the workloads of captured graphs, on every link.

Each workload on each link has a fresh client and two fresh workers, in which all variants take turns.
"""

import os
import secrets
import socket
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbline.core.measure.interleave import CONTROL, Candidate, Rounds, interleave
from plumbline.core.run.device import device_name, torch_device
from plumbline.core.run.processes import Member, run_group
from plumbline.core.run.progress import track
from plumbline.core.run.record import Outcome, OutcomeError, recording
from plumbline.core.run.stage import stage
from plumbline.disaggregation.capture import read_graphs
from plumbline.disaggregation.cores import CLIENT, bound_to
from plumbline.disaggregation.links import PORT, Network, network
from plumbline.disaggregation.measure import WEIGHTS_BYTES, BlockSpec, reached
from plumbline.disaggregation.micro_turns import ask_micro
from plumbline.disaggregation.runtime.connection import Bounds
from plumbline.disaggregation.runtime.demands import demands
from plumbline.disaggregation.runtime.deployment import Deployment
from plumbline.disaggregation.runtime.flat import Weights
from plumbline.disaggregation.runtime.graph import Graph
from plumbline.disaggregation.runtime.meter import counted
from plumbline.disaggregation.runtime.program import Program as Runnable
from plumbline.disaggregation.runtime.protocol import Limits
from plumbline.disaggregation.runtime.schedule import LOGITS, TOKEN, Captured, Plan, Route, here
from plumbline.disaggregation.runtime.weights import Store
from plumbline.disaggregation.runtime.worker import Worker
from plumbline.disaggregation.settings import LOCAL, MICRO, Link, Shapes, WorkloadName
from plumbline.disaggregation.workload_record import CEILING, WorkloadRecord
from plumbline.disaggregation.workloads import WORKLOADS
from plumbline.disaggregation.workloads.interface import Plans, Program, is_close

PROFILES = 5


class MeasureGraphsSpec(BlockSpec):
    """What decides a block's result."""

    pairs: list[tuple[WorkloadName, Link]]
    """Workloads and links."""
    shapes: Shapes


@stage
def measure_graphs(spec: MeasureGraphsSpec, graphs: Path, output: Path) -> None:
    """Writes a record for each workload and link beside `output`, which is that of the first."""
    import transformers.models.clip.modeling_clip
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.resnet.modeling_resnet  # noqa: F401

    for name, link in track(spec.pairs, len(spec.pairs), "workloads"):
        trial = f"{name}-{link}-{spec.block}"
        with recording(output.parent / f"{name}-{link}.json", WorkloadRecord, trial=trial, spec=spec) as findings:
            findings |= {"workload": name, "link": link, "block": spec.block}
            findings |= _block(spec, graphs, name, link)


def _block(spec: MeasureGraphsSpec, graphs: Path, name: WorkloadName, link: Link) -> dict[str, Any]:
    """What fresh processes find of one workload on one link."""
    secret = secrets.token_bytes(32)
    with ExitStack() as open_ones:
        between = open_ones.enter_context(closing(network(link)))
        beside = None
        if between.listening is not None:
            beside = open_ones.enter_context(socket.create_server(("127.0.0.1", 0)))
        addresses = [between.address, _second_address(between, beside)]
        asking = (spec, between, addresses, secret, graphs)
        client = partial(ask_micro, *asking, spec.shapes.micro) if name == MICRO else partial(ask, *asking, name)
        served, found = run_group(
            [
                Member(work=partial(serve_both, spec, between, beside, addresses, secret), name="workers", first=True),
                Member(work=client, name="client", first=True),
            ]
        )
    return dict(found | served)


def _second_address(between: Network, beside: socket.socket | None) -> str:
    """Where the client, and the first worker, find the second."""
    host, _, _ = between.address.rpartition(":")
    return f"{host}:{PORT + 1 if beside is None else beside.getsockname()[1]}"


def serve_both(
    spec: MeasureGraphsSpec, between: Network, beside: socket.socket | None, addresses: list[str], secret: bytes
) -> dict[str, Any]:
    """Both workers, on the far side of the link; nothing limits what goes from one to the other."""
    first = between.worker_end()
    if beside is None:
        host, _, _ = between.address.rpartition(":")
        beside = socket.create_server((host, PORT + 1))
    members = [
        Member(work=partial(serve, spec, listening, addresses, secret, number), name=f"worker {number}", first=True)
        for number, listening in enumerate((first, beside))
    ]
    found = run_group(members)
    return {
        "worker_pids": [one["pid"] for one in found],
        "worker_cores": [one["core"] for one in found],
        "device": found[0]["device"],
    }


def serve(
    spec: MeasureGraphsSpec, listening: socket.socket, addresses: list[str], secret: bytes, number: int
) -> dict[str, Any]:
    """A worker: serves until its client, and the other worker, have gone.

    On a core of its own, as if on a machine of its own: woken at once by one client, both would share one for as long
    as a call takes.
    """
    core = bound_to(number)
    device = torch_device(spec.device)
    limits, bounds = Limits(spin_seconds=spec.spin_seconds), Bounds(peers=tuple(addresses))
    worker = Worker(listening, secret, Store(WEIGHTS_BYTES, device), limits, bounds)
    was_used = False
    while not was_used or worker.connections:
        worker.turn()
        was_used = was_used or bool(worker.connections)
    return {"pid": os.getpid(), "core": core, "device": device_name(device)}


def ask(
    spec: MeasureGraphsSpec, between: Network, addresses: list[str], secret: bytes, graphs: Path, name: WorkloadName
) -> dict[str, Any]:
    """The client: every variant, in turns. Raises OutcomeError for outputs that are not the local ones."""
    core = bound_to(CLIENT)
    device = torch_device(spec.device)
    workload = WORKLOADS[name]
    program = workload.program(spec.shapes, spec.seed)
    for module in (program.module, program.local):
        module.to(device)
    found, capture_seconds = read_graphs(graphs, name)
    captured = Captured(graphs=found, rows=program.rows, wanted=program.wanted)
    weights = _weights(program, found.values())
    plans = workload.plans(captured, spec.shapes, _node_seconds(found[program.batches[-1]], program, weights))
    between.client_end()
    remotes = [reached(secret, spec.spin_seconds, address) for address in addresses]
    deployment = Deployment(remotes, weights)
    began = time.perf_counter()
    for source, target in ((0, 1), (1, 0)):
        deployment.connect_peers(source, target, addresses[target])
    for plan in [*plans.variants.values(), *plans.probes.values(), _doubled(plans)]:
        deployment.load(plan)
    load_seconds = time.perf_counter() - began
    arms, rounds = _turns(spec, name, program, plans, deployment, device)
    found_bytes = counted([one.wire for one in remotes])
    for remote in remotes:
        remote.close()
    return {
        "arms": arms,
        "costs": demands({**plans.variants, LOCAL: here(captured)}).model_dump(mode="json"),
        "precise": rounds.precise,
        "unit": workload.unit,
        "units": program.rows,
        "serial": plans.serial,
        "undivided": plans.undivided,
        "bound": plans.bound,
        "parameters": sum(one.numel() for one in program.module.parameters()),
        "nodes": len(found[program.rows].nodes),
        "capture_seconds": capture_seconds,
        "load_seconds": load_seconds,
        "client_pid": os.getpid(),
        "client_core": core,
        **found_bytes,
    }


def _weights(program: Program, graphs: Any) -> dict[str, Tensor]:
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


def _turns(
    spec: MeasureGraphsSpec,
    workload: str,
    program: Program,
    plans: Plans,
    deployment: Deployment,
    device: torch.device,
) -> tuple[list[dict[str, Any]], Rounds]:
    """All arms in turns, and what each has cost."""
    here = {name: one.to(device) for name, one in program.inputs.items()}
    expected = _expected(program, here)
    probes = {**plans.probes, CEILING: _doubled(plans)}
    runs: dict[str, Callable[[], dict[str, Tensor]]] = {LOCAL: partial(_local, program, here)}
    for name, plan in {**plans.variants, **probes}.items():
        runs[name] = partial(deployment.run, plan, program.inputs)
    checks = {name: {} if name in plans.probes else expected for name in runs}
    costs: dict[str, tuple[int, int] | None] = {LOCAL: None, CONTROL: None}
    for name, run in runs.items():  # warms up, too
        before = [replace(one.wire.meter) for one in deployment.remotes]
        _timed(name, run, checks[name])
        after = [one.wire.meter.since(was) for one, was in zip(deployment.remotes, before, strict=True)]
        if name != LOCAL:
            sizes = sum(one.sent_bytes + one.received_bytes for one in after)
            costs[name] = (sizes, sum(one.round_trips for one in after))
            _check_kept(name, {**plans.variants, **probes}[name], deployment, expected)
    candidates = [Candidate(name=name, run=partial(_timed, name, run, checks[name])) for name, run in runs.items()]
    rounds = interleave(
        candidates[0],
        candidates[1:],
        seconds=spec.seconds,
        precision=spec.precision,
        min_rounds=spec.min_rounds,
        seed=[spec.seed, spec.block, *workload.encode()],
    )
    kinds = dict.fromkeys(plans.probes, "probe") | {CEILING: "ceiling"}
    arms = []
    for name, seconds in zip(rounds.names, np.transpose(rounds.seconds), strict=True):
        cost = costs[name]
        row = {"name": name, "kind": kinds.get(name, "variant"), "seconds": seconds.tolist()}
        arms.append(row | {"bytes": cost and cost[0], "round_trips": cost and cost[1]})
    return arms, rounds


@torch.inference_mode()
def _expected(program: Program, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that the module gives, and the token where it gives logits."""
    made = program.module(**inputs)
    found = dict(zip(program.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    return _with_token({name: one.cpu() for name, one in found.items()})


@torch.inference_mode()
def _local(program: Program, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The wanted outputs, computed in this process."""
    made = program.local(**inputs)
    found = dict(zip(program.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    return {name: found[name].cpu() for name in program.wanted}


def _with_token(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The greedy token as well, where logits came back: then the client chooses."""
    return outputs | {TOKEN: outputs[LOGITS][:, -1].argmax(-1)} if LOGITS in outputs else outputs


def _timed(name: str, run: Callable[[], dict[str, Tensor]], expected: Mapping[str, Tensor]) -> float:
    """Seconds of one turn. Raises OutcomeError for other outputs than `expected`, unless that is empty."""
    began = time.perf_counter()
    outputs = _with_token(run())
    seconds = time.perf_counter() - began
    if expected and not outputs:
        raise OutcomeError(Outcome.INVALID_OUTPUT, f"{name} returns nothing")
    for key, value in outputs.items() if expected else ():
        _check(name, key, value, expected[key])
    return seconds


def _check(variant: str, name: str, value: Tensor, expected: Tensor) -> None:
    """Raises OutcomeError unless the value is the local one: all of it, its last position, or twice that (ceiling)."""
    if name == LOGITS and value.shape[1] == 1:
        expected = expected[:, -1:]
    if variant == CEILING:
        expected = torch.cat([expected, expected])
    if value.shape != expected.shape:
        raise OutcomeError(Outcome.INVALID_OUTPUT, f"{variant}: {name} has the shape {list(value.shape)}")
    if not is_close(value, expected):
        raise OutcomeError(Outcome.INVALID_OUTPUT, f"{variant}: {name} is not what local computes")


def _check_kept(name: str, plan: Plan, deployment: Deployment, expected: Mapping[str, Tensor]) -> None:
    """Raises OutcomeError unless what a plan keeps on the workers is the local state."""
    number = 0
    for call in plan.calls:
        for output in sorted(call.graph.outputs):
            if call.routes[output] is Route.KEEP:
                rows = slice(None) if call.rows is None else slice(*call.rows)
                _check(LOCAL, f"{output} kept by {name}", deployment.fetch(call.worker, number), expected[output][rows])
            number += 1


if __name__ == "__main__":
    measure_graphs.main()
