"""The client of the micro workload: every program, wherever it can run and whatever moves, in turns."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbline.core.measure.interleave import CONTROL, Candidate, interleave
from plumbline.core.run.device import torch_device
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.disaggregation.capture import read_graphs
from plumbline.disaggregation.cores import CLIENT, bound_to
from plumbline.disaggregation.links import Network
from plumbline.disaggregation.measure import BlockSpec, reached
from plumbline.disaggregation.runtime import buffers
from plumbline.disaggregation.runtime.cost_model import HERE, CallDemand, Demands, Work
from plumbline.disaggregation.runtime.demands import demands
from plumbline.disaggregation.runtime.deployment import Deployment
from plumbline.disaggregation.runtime.keys import keyed, tagged
from plumbline.disaggregation.runtime.meter import counted
from plumbline.disaggregation.runtime.protocol import Op
from plumbline.disaggregation.runtime.remote import Remote
from plumbline.disaggregation.runtime.schedule import Captured
from plumbline.disaggregation.settings import LOCAL, MICRO, ROUND_TRIP, SERIALISE, MicroSettings
from plumbline.disaggregation.workloads import microbenchmark
from plumbline.disaggregation.workloads.interface import Program, is_close

SERIALISED_BYTES = (1 << 16, 1 << 20)


@dataclass
class _Arms:
    """What takes turns, what each takes of the machine, and what preparing it took."""

    runs: dict[str, Callable[[], float]] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)
    plans: dict[str, list[CallDemand]] = field(default_factory=dict)
    capture_seconds: float = 0.0
    load_seconds: float = 0.0
    nodes: int = 0


def ask_micro(
    spec: BlockSpec, between: Network, addresses: Sequence[str], secret: bytes, graphs: Path, sizes: MicroSettings
) -> dict[str, Any]:
    """The client: all programs in turns. Raises OutcomeError for outputs that are not the local ones."""
    core, device = bound_to(CLIENT), torch_device(spec.device)
    between.client_end()
    remotes: list[Remote] = []

    def connections() -> list[Remote]:
        """One to each worker, of a program's own: a connection may have only so many graphs."""
        opened = [reached(secret, spec.spin_seconds, address) for address in addresses]
        remotes.extend(opened)
        return opened

    arms = _Arms()
    _add_probes(arms, connections()[0])
    programs = microbenchmark.programs(sizes, spec.seed)
    weights = microbenchmark.weights(programs)
    for name, program in programs.items():
        _add_program(arms, name, program, Deployment(connections(), weights, device), graphs)
    told, is_precise = _turns(spec, arms, remotes)
    found = counted([one.wire for one in remotes])
    for remote in remotes:
        remote.close()
    return {
        "arms": told,
        "costs": Demands(work=arms.work, plans=arms.plans).model_dump(mode="json"),
        "precise": is_precise,
        "nodes": arms.nodes,
        "capture_seconds": arms.capture_seconds,
        "load_seconds": arms.load_seconds,
        "client_pid": os.getpid(),
        "client_core": core,
        **found,
    }


def _turns(spec: BlockSpec, arms: _Arms, remotes: Sequence[Remote]) -> tuple[list[dict[str, Any]], bool]:
    """Every arm as a record has it, and whether the time sufficed for the precision."""
    traffic = {name: _traffic(run, remotes) for name, run in arms.runs.items()}  # warms up, too
    first, *others = [Candidate(name=name, run=run) for name, run in arms.runs.items()]
    rounds = interleave(
        first,
        others,
        seconds=spec.seconds,
        precision=spec.precision,
        min_rounds=spec.min_rounds,
        seed=[spec.seed, spec.block],
    )
    told = []
    for name, seconds in zip(rounds.names, np.transpose(rounds.seconds), strict=True):
        sizes, trips = traffic[first.name if name == CONTROL else name]
        kind = "variant" if "/" in name or name == CONTROL else "probe"
        row = {"name": name, "kind": kind, "seconds": seconds.tolist()}
        told.append(row | {"bytes": sizes if trips else None, "round_trips": trips or None})
    return told, rounds.precise


def _add_probes(arms: _Arms, remote: Remote) -> None:
    """A round trip of the smallest frames, and the MACs of buffers at both ends."""
    arms.runs[ROUND_TRIP] = partial(_round_trip, remote)
    arms.plans[ROUND_TRIP] = []
    for size in SERIALISED_BYTES:
        name = f"{SERIALISE}_{size}"
        arms.runs[name] = partial(_serialise, torch.zeros(size, dtype=torch.uint8))
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


def _add_program(arms: _Arms, name: str, program: Program, deployment: Deployment, graphs: Path) -> None:
    """A program, run by local and by each of its plans."""
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
    local = partial(_local, program, here)
    expected = _all_outputs(program, here)
    arms.runs[f"{name}/{LOCAL}"] = partial(_timed, f"{name}/{LOCAL}", local, expected)
    for variant, plan in plans.items():
        run = partial(deployment.run, plan, program.inputs)
        arms.runs[f"{name}/{variant}"] = partial(_timed, f"{name}/{variant}", run, expected)
    costs = demands({f"{name}/{variant}": plan for variant, plan in plans.items()})
    arms.work |= costs.work
    arms.plans |= costs.plans


@torch.inference_mode()
def _all_outputs(program: Program, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.cpu() for name, one in zip(program.outputs, program.module(**inputs), strict=True)}


@torch.inference_mode()
def _local(program: Program, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The wanted outputs, computed in this process."""
    made = dict(zip(program.outputs, program.local(**inputs), strict=True))
    return {name: made[name].cpu() for name in program.wanted}


def _timed(name: str, run: Callable[[], dict[str, Tensor]], expected: Mapping[str, Tensor]) -> float:
    """Seconds of one turn. Raises OutcomeError for other outputs than `expected`, or none."""
    began = time.perf_counter()
    outputs = run()
    seconds = time.perf_counter() - began
    for key, value in outputs.items():
        if not is_close(value, expected[key]):
            raise OutcomeError(Outcome.INVALID_OUTPUT, f"{name}: {key} is not what local computes")
    if not outputs:
        raise OutcomeError(Outcome.INVALID_OUTPUT, f"{name} returns nothing")
    return seconds


def _traffic(run: Callable[[], float], remotes: Sequence[Remote]) -> tuple[int, int]:
    """Bytes both ways and round trips of a turn."""
    before = [replace(one.wire.meter) for one in remotes]
    run()
    after = [one.wire.meter.since(was) for one, was in zip(remotes, before, strict=True)]
    return sum(one.sent_bytes + one.received_bytes for one in after), sum(one.round_trips for one in after)
