"""The records of workloads of captured graphs: what a block of interleaved turns found. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from plumbline.core.measure.interleave import CONTROL
from plumbline.core.run.record import Outcome, Record
from plumbline.core.run.records import check_specs, read_records
from plumbline.core.settings import Settings
from plumbline.disaggregation.record import Arm
from plumbline.disaggregation.runtime.planning.cost_model import Demands
from plumbline.disaggregation.settings import LOCAL, Link, WorkloadName

CEILING = "both_workers"
"""The arm in which each worker does all the work of the serial variant, at once."""


class WorkloadArm(Settings):
    """One variant, or what tells how fast it could be, in the turns of one block."""

    name: str
    kind: Literal["variant", "probe", "ceiling"] = "variant"
    """A probe is a part that runs alone; the ceiling is what two workers at once give."""
    seconds: list[float]
    """Of a call of the whole, one a round."""
    bytes: float | None
    """Both ways in a call, headers and MACs included; None where nothing is sent, or nothing can count it."""
    counted_by: Literal["protocol", "interface"] | None = None
    """The protocol's counters, or those of the network interface, which count headers of TCP, IP and Ethernet too."""
    round_trips: int | None
    """None where nothing is sent."""


class WorkloadRecord(Record):
    """What one block found of one workload on one link."""

    study: Literal["disaggregation"] = "disaggregation"
    stage: Literal["measure_graphs"] = "measure_graphs"
    workload: WorkloadName
    link: Link
    block: int
    unit: str | None = None
    """What a row of the batch is."""
    units: int | None = None
    """Rows of the batch."""
    serial: str | None = None
    """The variant in which one worker does all the work."""
    undivided: str | None = None
    """The variant in which one worker takes the whole batch in one call, where `serial` takes it in parts."""
    bound: float | None = None
    """How many times as fast `full` can be as that; None: Σ ÷ max of the probes' times."""
    arms: list[WorkloadArm] = []
    costs: Demands = Demands()
    """What the arms take, in the terms of the cost model, by their names."""
    precise: bool | None = None
    """Whether the time sufficed for the precision asked for, within this block."""
    parameters: int | None = None
    nodes: int | None = None
    """Operations in the graph of the whole batch."""
    capture_seconds: float | None = None
    """For all of the workload's graphs, once."""
    load_seconds: float | None = None
    """To bring graphs and weights to the workers, once in a block."""
    worker_pids: list[int] = []
    worker_cores: list[int] = []
    """The core that each worker is bound to."""
    unavailable: dict[str, str] = {}
    """Baselines that were asked for and could not run here, and why."""
    rpc_pid: int | None = None
    """Of the process that owns rpc's module, as it says itself when it ends."""
    owner_pids: dict[str, int] = {}
    """Of the baselines behind calls: the process that computed, as it told the client."""
    owner_threads: dict[str, int] = {}
    """How many threads each of them computed with."""
    owner_cores: dict[str, list[int]] = {}
    """The cores that each of them may run on."""
    client_pid: int | None = None
    client_core: int | None = None
    protocol_bytes: int | None = None
    """All that the client sent and received, by the protocol's counters."""
    kernel_bytes: int | None = None
    """The same by the kernel's (TCP_INFO); None where it has none."""

    @model_validator(mode="after")
    def _measured_blocks_have_turns(self) -> Self:
        if self.outcome is Outcome.OK and not self.arms:
            raise ValueError("arms are missing, and the outcome is ok")
        return self


def over_local(arms: Sequence[Arm | WorkloadArm]) -> dict[str, float]:
    """Each variant's time over local's in one block: the median over rounds.

    Local is both of its turns, in the geometric mean, except in the micro workload; there, each round's ratio is the
    geometric mean over programs.
    """
    logs = {arm.name: np.log(arm.seconds) for arm in arms}
    if CONTROL in logs and LOCAL in logs:
        logs[LOCAL] = (logs[LOCAL] + logs[CONTROL]) / 2
    ratios: dict[str, list[NDArray[np.float64]]] = {}
    for name, own in logs.items():
        program, slash, variant = name.rpartition("/")
        local = logs.get(f"{program}{slash}{LOCAL}")
        if local is not None and variant not in (LOCAL, CONTROL):
            ratios.setdefault(variant, []).append(own - local)
    return {variant: float(np.exp(np.median(np.mean(each, axis=0)))) for variant, each in ratios.items()}


def target_name(block: int) -> str:
    """The target that writes all records of a block."""
    return f"block-{block}"


def read_workloads(paths: Sequence[Path], expected: Mapping[str, str]) -> list[WorkloadRecord]:
    """The records at `paths`, by workload, link and block; none where there are no paths.

    expected: target -> digest of the spec that its records must have. Raises UserError as `read_records` does.
    """
    if not paths:
        return []
    records = read_records(WorkloadRecord, paths)
    check_specs(records, {one.trial: expected.get(target_name(one.block), "") for one in records})
    return sorted(records, key=lambda one: (one.workload, one.link, one.block))
