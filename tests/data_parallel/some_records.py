"""Records of a study with two worlds, as its stages would write them."""

import json
from pathlib import Path

import numpy as np

from plumbline.core.plan.target import canonical, digest
from plumbline.core.run.record import Record
from plumbline.data_parallel.record import (
    AllReduce,
    ComparisonRecord,
    Difference,
    EqualityRecord,
    RankEpoch,
    Translation,
    TrialRecord,
    Turns,
)
from plumbline.data_parallel.summarize import SummarizeSpec, summarize

LATENCY, BYTES_PER_SECOND = 40e-6, 2e9
HEAD = {"started": "2026-11-26T00:00:00+00:00", "seconds": 9.0, "machine": {"cpu_model": "a CPU", "cores": 2}}
HEAD |= {"outcome": "ok", "device": "cpu"}
SPEEDS = {"1 process": 1.0, "control": 1.0, "2 independent": 1.9, "ddp strong 2": 1.6, "ddp weak 2": 1.8}


def epoch(rank: int, world: int, number: int) -> RankEpoch:
    """An epoch whose first is slow; rank 1 is slower than rank 0."""
    seconds = (9.0 if number == 0 else 2.0 + 0.1 * number) / world + 0.2 * rank
    spent = dict.fromkeys(("validation_seconds", "checkpoint_seconds", "data_seconds", "control_seconds"), 0.01)
    spent |= {"forward_seconds": 0.3 * seconds, "backward_seconds": 0.6 * seconds, "optimizer_seconds": 0.05}
    counts = {"steps": 10, "sequences": 40, "tokens": 1000, "padded_tokens": 50, "target_tokens": 500}
    measured = {"training_loss": 3.0 - number, "validation_loss": 3.1 - number, "bleu": 10.0 * number}
    place = {"rank": rank, "world": world, "epoch": number, "training_time": seconds, "tokens_per_sec": 1000 / seconds}
    return RankEpoch(**place, **measured, **counts, **spent, communication_seconds=0.1 if world > 1 else 0.0)


def trial(world: int, scaling: str = "strong", epochs: int = 3) -> TrialRecord:
    name = "single" if world == 1 else f"ddp-{scaling}-{world}"
    found = Translation(sentences=8, bleu=20.0, copied_bleu=0.1)
    return TrialRecord(
        **HEAD,
        trial=name,
        spec={"trial": name},
        method="ddp",
        scaling=scaling,
        world=world,
        batch=4,
        epochs=[epoch(rank, world, number) for number in range(epochs) for rank in range(world)],
        translations={"validation": found, "test": found, "held_out": found},
        bleu_signature="nrefs:1",
        parameters=1000,
        weights_sha256="0",
        wire_bytes_per_step=4000.0 if world > 1 else 0.0,
        memory_bytes={"weights": 4000, "peak_rss": 10**8},
        restarts=0,
    )


def equality() -> EqualityRecord:
    place = {"method": "ddp", "world": 2, "outcome": "ok", "ranks_agree": True, "memory_bytes": {"weights": 4000}}
    return EqualityRecord(
        **HEAD,
        trial="equality",
        spec={"trial": "equality"},
        steps=20,
        differences=[
            Difference(**place, dtype="float32", largest=1e-7, bound=1e-5, wire_bytes_per_step=4000.0),
            Difference(**place, dtype="float64", largest=1e-6, bound=1e-10, wire_bytes_per_step=8000.0),
            Difference(method="fsdp", world=2, dtype="float32", outcome="unavailable", message="not on this backend"),
        ],
    )


def comparison(rounds: int = 30, noise: float = 0.01) -> ComparisonRecord:
    """Turns whose speeds are SPEEDS of one process, on a machine whose speed drifts by half."""
    random = np.random.default_rng(0)
    drift = np.exp(0.5 * np.sin(np.arange(rounds) / 4))
    candidates = []
    for name, speed in SPEEDS.items():
        world = 2 if "2" in name else 1
        scaling = next((kind for kind in ("weak", "independent") if kind in name), "strong")
        seconds = 1e-4 * drift / speed * np.exp(noise * random.standard_normal(rounds))
        method = "ddp" if "ddp" in name else None
        candidates.append(
            Turns(name=name, method=method, world=world, scaling=scaling, tokens=1000, seconds=seconds.tolist())
        )
    reduces = [
        AllReduce(world=2, bytes=size, seconds=[2 * LATENCY + size / BYTES_PER_SECOND] * 5)
        for size in (64, 4096, 2**18, 2**24)
    ]
    return ComparisonRecord(
        **HEAD,
        trial="speed",
        spec={"trial": "speed"},
        candidates=candidates,
        launches=[3 * number // rounds for number in range(rounds)],
        precise=True,
        parameters=1000,
        batch=16,
        step_tokens=500,
        all_reduces=reduces,
        waited_percent=[0.0] * rounds,
    )


def everything() -> list[Record]:
    """All records of the study."""
    return [trial(1), trial(2), trial(2, "weak"), equality(), comparison()]


def write_summary(folder: Path) -> Path:
    """Writes records and summarizes them; returns results.json."""
    records = everything()
    paths = []
    for record in records:
        path = folder / f"{record.trial}.json"
        path.write_text(json.dumps(record.to_json()))
        paths.append(path)
    output = folder / "results" / "results.json"
    summarized(records, paths, output)
    return output


def summarized(records: list[Record], paths: list[Path], output: Path) -> None:
    """Summarizes the files as those of the plan that made `records`."""
    known = {record.trial: digest(canonical(record.spec)) for record in records}
    summarize(SummarizeSpec(code="", inputs="", records=known), paths[:3], paths[3], paths[4], output)
