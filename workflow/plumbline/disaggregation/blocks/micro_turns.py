"""The client of the micro workload: every program, wherever it can run and whatever moves, in turns."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
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
from plumbline.disaggregation.runtime.planning.cost_model import HERE, CallDemand, Demands, Work
from plumbline.disaggregation.runtime.planning.demands import demands
from plumbline.disaggregation.runtime.planning.schedule import Captured
from plumbline.disaggregation.runtime.transport import buffers
from plumbline.disaggregation.runtime.transport.keys import keyed, tagged
from plumbline.disaggregation.runtime.transport.protocol import Op
from plumbline.disaggregation.runtime.transport.remote import Remote
from plumbline.disaggregation.settings import LOCAL, MICRO, ROUND_TRIP, SERIALISE
from plumbline.disaggregation.workloads import microbenchmark
from plumbline.disaggregation.workloads.interface import Program
from plumbline.disaggregation.workloads.outputs import expected, local, timed

SERIALISED_BYTES = (1 << 16, 1 << 20)


@dataclass
class _Arms:
    """What takes turns, what each takes of the machine, and what preparing it took."""

    turns: dict[str, Arm] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)
    plans: dict[str, list[CallDemand]] = field(default_factory=dict)
    capture_seconds: float = 0.0
    load_seconds: float = 0.0
    nodes: int = 0


def ask_micro(
    spec: MeasureGraphsSpec, between: Network, addresses: Sequence[str], secret: bytes, graphs: Path, others: Others
) -> dict[str, Any]:
    """The client: all programs in turns. Raises OutcomeError for outputs that are not the local ones."""
    device = torch_device(spec.device)
    between.client_end()
    remotes: list[Remote] = []

    def connections() -> list[Remote]:
        """One to each worker, of a program's own: a connection may have only so many graphs."""
        opened = [reached(secret, spec.spin_seconds, address) for address in addresses]
        remotes.extend(opened)
        return opened

    with ExitStack() as open_ones:
        built = {"workload": MICRO, "shapes": spec.shapes, "seed": spec.seed, "device": str(device)}
        owners = open_ones.enter_context(others.owned(between, Programs, built))
        known = introduced(owners)
        core = bound_to(CLIENT)  # after Ray's daemons have started, which may run on any core
        arms = _Arms()
        _add_probes(arms, connections()[0])
        programs = microbenchmark.programs(spec.shapes.micro, spec.seed)
        weights = microbenchmark.weights(programs)
        for name, program in programs.items():
            wanted = _add_program(arms, name, program, Deployment(connections(), weights, device), graphs)
            for baseline, owner in owners.items():  # the cost model, which is of the runtime's plans, leaves these out
                own = f"{name}/{baseline}"
                arms.turns[own] = Behind(owner, between, name, program.inputs).arm(own, wanted)
        told, is_precise = in_turns(spec, arms.turns, [spec.seed, spec.block], warms=True)
        at_end = ended(remotes)
    return (known | at_end) | {
        "client_core": core,
        "arms": told,
        "costs": Demands(work=arms.work, plans=arms.plans).model_dump(mode="json"),
        "precise": is_precise,
        "nodes": arms.nodes,
        "capture_seconds": arms.capture_seconds,
        "load_seconds": arms.load_seconds,
    }


def _add_probes(arms: _Arms, remote: Remote) -> None:
    """A round trip of the smallest frames, and the MACs of buffers at both ends."""
    arms.turns[ROUND_TRIP] = Arm(run=partial(_round_trip, remote), kind="probe", count=partial(by_protocol, [remote]))
    arms.plans[ROUND_TRIP] = []
    for size in SERIALISED_BYTES:
        name = f"{SERIALISE}_{size}"
        arms.turns[name] = Arm(run=partial(_serialise, torch.zeros(size, dtype=torch.uint8)), kind="probe")
        arms.plans[name] = [CallDemand(worker=HERE, sent_bytes=size)]


def _round_trip(remote: Remote) -> float:
    began = time.perf_counter()
    remote.ask(Op.INBOX)
    return time.perf_counter() - began


def _serialise(value: Tensor) -> float:
    state, pieces = keyed(b"key"), buffers.pieces([value])
    began = time.perf_counter()
    for _ in ("sender", "receiver"):
        tagged(state, *pieces)
    return time.perf_counter() - began


def _add_program(arms: _Arms, name: str, program: Program, deployment: Deployment, graphs: Path) -> dict[str, Tensor]:
    """A program, run by local and by each of its plans; what it returns."""
    found, seconds = read_graphs(graphs, f"{MICRO}/{name}")
    plans = microbenchmark.plans(Captured(graphs=found, rows=program.rows, wanted=program.wanted))
    program.module.to(deployment.here)
    began = time.perf_counter()
    for plan in plans.values():
        deployment.load(plan)
    arms.load_seconds += time.perf_counter() - began
    arms.capture_seconds += seconds
    arms.nodes += len(found[program.rows].nodes)
    here = {place: one.to(deployment.here) for place, one in program.inputs.items()}
    wanted = expected(program, here)
    arms.turns[f"{name}/{LOCAL}"] = Arm(run=partial(timed, f"{name}/{LOCAL}", partial(local, program, here), wanted))
    for variant, plan in plans.items():
        own = f"{name}/{variant}"
        run = partial(timed, own, partial(deployment.run, plan, program.inputs), wanted)
        arms.turns[own] = Arm(run=run, count=partial(by_protocol, deployment.remotes))
    costs = demands({f"{name}/{variant}": plan for variant, plan in plans.items()})
    arms.work |= costs.work
    arms.plans |= costs.plans
    return wanted
