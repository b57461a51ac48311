"""Records of two blocks, as the stage would write them, with known ratios."""

import json

import numpy as np

from plumbline.core.plan.target import canonical, digest
from plumbline.disaggregation.record import MeasureRecord
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
    values |= {"spec": {"block": number, "link": link}, "contexts": [{"context": 32, "arms": arms, "precise": True}]}
    return MeasureRecord.model_validate(HEAD | values | changes)


CALLS = {"local": 1.0, "control": 1.0, FULL: 0.6, "no_branches": 1.1, "remote": 1.5, "no_semantics": 2.0}
CALLS |= {"image": 0.6, "text": 0.4, "both_workers": 1.21}
"""Times over those of local: two workers at once do 2 × 1.1 ÷ 1.21 = 1.82 times the work of one."""


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
            "bytes": None if name in ("local", "control") else 1000.0 * times,
            "round_trips": None if name in ("local", "control") else 1,
        }
        for name, times in CALLS.items()
    ]
    values = {"trial": f"multimodal_vqa-{link}-{number}", "outcome": "ok", "device": "cpu", "link": link}
    values |= {"workload": "multimodal_vqa", "block": number, "arms": arms, "precise": True, "serial": "no_branches"}
    values |= {"unit": "question", "units": 4, "spec": {"block": number}}
    return WorkloadRecord.model_validate(HEAD | values | changes)


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
