"""Records of two blocks, as the stage would write them, with known ratios."""

import json

import numpy as np

from plumbline.core.plan.target import canonical, digest
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.runtime.planning.cost_model import HERE, CallDemand, CostModel, Demands, LinkCosts, Work
from plumbline.disaggregation.settings import CONTRASTS, FULL, REMOTE, WORKLOAD_CONTRASTS
from plumbline.disaggregation.summarize import SummarizeSpec, summarize
from plumbline.disaggregation.workload_record import WorkloadRecord, target_name

HEAD = {"started": "2026-11-26T00:00:00+00:00", "seconds": 9.0, "machine": {"cpu_model": "a CPU", "cores": 2}}
TIMES = {"local": 1.0, "control": 1.0, "generate": 1.1, FULL: 1.02, "no_stream": 1.3, "no_server_sampling": 1.4}
TIMES |= {"no_last_logits": 1.025, "no_phase": 2.0, "no_state_resident": 5.0, "no_weights_resident": 9.0}
TIMES |= {"remote": 1.6, "no_semantics": 6.0, "capture_only": 0.9, "rpc": 2.0}
"""Times over those of local."""
ROUNDS = 12


def block(number: int, link: str = "loopback", **changes: object) -> MeasureRecord:
    """A block whose machine is slower by half than the one before, and drifts."""
    draw = np.random.default_rng(number)
    drift = 1e-3 * 1.5**number * np.linspace(1, 2, ROUNDS)
    arms = [
        {
            "name": name,
            "seconds": list(times * drift * draw.normal(1, 0.002, ROUNDS)),
            "bytes_per_token": 36.0 * times if name in REMOTE else None,
            "counted_by": "protocol" if name in REMOTE else None,
            "round_trips_per_token": 1.0 if name in REMOTE or name == "rpc" else None,
        }
        for name, times in TIMES.items()
    ]
    values = {
        "trial": f"llm_decode-{link}-{number}",
        "outcome": "ok",
        "device": "cpu",
        "parameters": 1_600_000_000,
        "link": link,
        "block": number,
        "capture_seconds": 0.5,
        "captured_operations": 99,
    }
    values |= {
        "spec": {"block": number, "link": link, "baselines": BASELINES},
        "contexts": [{"context": 32, "arms": arms, "precise": True}],
    }
    return MeasureRecord.model_validate(HEAD | values | changes)


BASELINES = ["capture_only", "rpc"]
CALLS = {"local": 1.0, "control": 1.0, FULL: 0.6, "no_branches": 1.1, "remote": 1.5, "no_semantics": 2.0}
CALLS |= {"capture_only": 0.9, "rpc": 1.8, "image": 0.6, "text": 0.4, "both_workers": 1.21}
"""Times over those of local: two workers at once do 2 × 1.1 ÷ 1.21 = 1.82 times the work of one."""
IN_CLIENT = ("local", "control", "capture_only")


def graphs_block(number: int, link: str = "loopback", **changes: object) -> WorkloadRecord:
    """A block of `multimodal_vqa`."""
    draw = np.random.default_rng(number)
    drift = 1e-2 * 1.5**number * np.linspace(1, 2, ROUNDS)
    kinds = {"image": "probe", "text": "probe", "both_workers": "ceiling"}
    arms = [
        {
            "name": name,
            "kind": kinds.get(name, "variant"),
            "seconds": list(times * drift * draw.normal(1, 0.002, ROUNDS)),
            "bytes": None if name in (*IN_CLIENT, "rpc") else 1000.0 * times,
            "round_trips": None if name in IN_CLIENT else 1,
        }
        for name, times in CALLS.items()
    ]
    values = {"trial": f"multimodal_vqa-{link}-{number}", "outcome": "ok", "device": "cpu", "link": link}
    values |= {"workload": "multimodal_vqa", "block": number, "arms": arms, "precise": True, "serial": "no_branches"}
    values |= {"unit": "question", "units": 4, "spec": {"block": number, "baselines": BASELINES}}
    return WorkloadRecord.model_validate(HEAD | values | changes)


COSTS = CostModel(
    flops_per_second=5e10,
    memory_bytes_per_second=1e10,
    operation_seconds=1e-5,
    graph_seconds=1e-4,
    call_seconds=2e-4,
    serialisation_seconds_per_byte=1e-9,
    sharing=1.2,
    links={
        "loopback": LinkCosts(round_trip_seconds=2e-4, bytes_per_second=2e9),
        "1gbit": LinkCosts(round_trip_seconds=3e-4, bytes_per_second=1.2e8),
    },
)
OPERATIONS = {
    "small": (1e5, 1e4, 2.0),
    "many": (1e5, 1e4, 32.0),
    "wide": (1e6, 8e6, 2.0),
    "deep": (2e8, 1e6, 16.0),
    "huge": (2e9, 1e6, 2.0),
}
"""FLOPs, bytes and how many."""


def micro_block(number: int, link: str = "loopback", **slowed: float) -> WorkloadRecord:
    """A block of the micro workload that takes what COSTS says; slowed: family -> how many times as long."""
    draw = np.random.default_rng(number)
    demands, arms = Demands(), []

    def add(name: str, calls: list[CallDemand], factor: float = 1.0) -> None:
        seconds = factor * COSTS.seconds(calls, demands.work, link) * draw.normal(1, 0.002, ROUNDS)
        demands.plans[name] = calls
        kind = "variant" if "/" in name or name == "control" else "probe"
        arms.append({"name": name, "kind": kind, "seconds": list(seconds), "bytes": None, "round_trips": None})

    add("round_trip", [])
    add("control", [])
    del demands.plans["control"]  # nothing more to predict
    add("serialise_1048576", [CallDemand(worker=HERE, sent_bytes=1 << 20)])
    for family in ("matmul", "conv", "norm"):
        for size, (flops, moved, count) in OPERATIONS.items():
            whole, half, program = f"{family}_{size}", f"{family}_{size}_half", f"{family}_{size}"
            demands.work[whole] = Work(operations=count, parts=[(flops, moved, count)])
            demands.work[half] = Work(operations=count, parts=[(flops / 2, moved / 2, count)])
            one = CallDemand(worker=0, work=whole, sent_bytes=moved / 8, returned_bytes=16)
            parts = [CallDemand(worker=worker, work=half, sent_bytes=moved / 16) for worker in (0, 1)]
            factor = slowed.get(family, 1.0)
            add(f"{program}/local", [CallDemand(worker=HERE, work=whole)], 0.5 * factor)
            del demands.plans[f"{program}/local"]  # the model predicts graphs, not modules
            add(f"{program}/capture_only", [CallDemand(worker=HERE, work=whole)], factor)
            add(f"{program}/full", [one], factor)
            add(f"{program}/split", parts, factor)
            add(f"{program}/remote", [one.model_copy(update={"returned_bytes": moved / 8})], factor)
            add(f"{program}/rpc", [one], 9 * factor)
            del demands.plans[f"{program}/rpc"]  # nor other systems' calls
    values = {"trial": f"microbenchmark-{link}-{number}", "outcome": "ok", "device": "cpu", "link": link, "arms": arms}
    values |= {
        "workload": "microbenchmark",
        "block": number,
        "costs": demands,
        "spec": {"block": number, "baselines": BASELINES},
    }
    return WorkloadRecord.model_validate(HEAD | values)


def summarized(folder, records, others=()):
    """The folder that the summary of these records was written to; `others` are of captured graphs."""
    paths = []
    for record in records:
        paths.append(folder / "trials" / f"{record.trial}.json")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_text(json.dumps(record.to_json()))
    specs = {record.trial: digest(canonical(record.spec)) for record in records}
    graphs = []
    for record in others:
        graphs.append(folder / "trials" / f"block-{record.block}" / f"{record.workload}-{record.link}.json")
        graphs[-1].parent.mkdir(parents=True, exist_ok=True)
        graphs[-1].write_text(json.dumps(record.to_json()))
        specs[target_name(record.block)] = digest(canonical(record.spec))
    families = {"contrasts": CONTRASTS, "workload_contrasts": WORKLOAD_CONTRASTS}
    spec = SummarizeSpec(code="", inputs="", records=specs, **families)
    summarize(spec, paths, graphs, folder / "results.json")
    return folder
