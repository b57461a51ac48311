"""Plausible variants and trials, drawn at random, for the tests of the study's tables, figures and comparisons."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from plumbline.core.files import write_json
from plumbline.core.run.record import Record
from plumbline.throughput.models.manifest import Calibration, Manifest
from plumbline.throughput.record import ComparisonRecord, TrialRecord

RATIOS = (0.8, 0.6, 0.4, 0.2)
ENGINES = ("generate", "static", "continuous")
HEAD = {"schema": 1, "study": "throughput", "stage": "measure", "started": "2026-01-01T00:00:00+00:00"}
CORES = 2
WEIGHTS = 620_000.0
"""Bytes of the base's."""


def manifest(variant: str = "base", **changes: Any) -> Manifest:
    """A variant by its name, as `whitened-0.8`."""
    method, _, share = variant.partition("-")
    ratio = 1.0 if variant == "base" else float(share)
    lost = {"base": 0.0, "whitened": 0.45, "plain": 1.5}[method] * (1 - ratio) ** 1.5
    values: dict[str, Any] = {
        "variant": variant, "method": "none" if variant == "base" else method, "ratio": ratio,
        "folder": f"models/{variant}", "weights": "trained", "sha256": variant, "parent": None,
        "parameters": int(35_000 + 120_000 * ratio), "perplexity": 30.4 * float(np.exp(lost)),
        "evaluation_tokens": 16_128,
    }  # fmt: skip
    windows = np.random.default_rng(0).normal(float(np.log(values["perplexity"])), 0.3, 64)
    of_variant = np.random.default_rng(crc32(variant.encode())).normal(0, 0.05, 64)
    values["window_nats"] = [float(loss) for loss in windows + of_variant]
    if variant != "base":
        values |= {"parent": "base", "calibration": Calibration(source="text", tokens=16_384)}
    return Manifest(**(values | changes))


def trial(
    variant: str = "base", engine: str = "lean", batch: int = 1, prompt: int = 4, generated: int = 32, **changes: Any
) -> TrialRecord:
    """A record; `slower` multiplies its seconds, `seed` draws other batches, `cpu` names the machine's."""
    options = {name: changes.pop(name, usual) for name, usual in (("slower", 1.0), ("seed", 0), ("cpu", "Xeon"))}
    name = f"{variant}/{engine}/b{batch}-p{prompt}-g{generated}"
    rng = np.random.default_rng([options["seed"], crc32(name.encode())])
    ratio = 1.0 if variant == "base" else float(variant.partition("-")[2])
    step = (1.6e-4 + 1.1e-5 * batch * (0.4 + 0.6 * ratio)) * {"lean": 1, "generate": 14, "static": 6}.get(engine, 22)
    first, each = 1.6 * step, step * (1 + 0.002 * generated)
    seconds = options["slower"] * (first + each * (generated - 1)) * rng.lognormal(0, 0.01, 30)
    rate = batch * generated / seconds.mean()
    gaps = options["slower"] * each * rng.lognormal(0, 0.02, generated - 1)
    decode = batch / gaps.mean() if len(gaps) else None
    weights, kv = round(WEIGHTS * (0.2 + 0.8 * ratio)), 1024 * batch * (prompt + generated)
    loaded = 290_000_000 + weights * 13 // 10
    peak = loaded + 2_000_000 + 3 * kv + 40_000 * batch
    bandwidth, flops = 9e9, 8e10
    moved, work = weights + kv, 2 * weights / 4 * batch
    steps = None if decode is None else decode / batch
    ceiling = batch / max(moved / bandwidth, work / flops)
    whole = HEAD | {
        "trial": name, "outcome": "ok", "message": None, "seconds": 3.1,
        "spec": {"model": "small", "cell": {"variant": variant, "engine": engine, "batch": batch, "prompt": prompt,
                 "generated": generated}, "seed": 0, "timing": {"seconds": 0.6}, "code": "c", "inputs": "i"},
        "machine": {"cpu_model": options["cpu"], "cores": CORES, "gpus": [], "versions": {"torch": "2.13"}},
        "model": "small", "variant": variant, "method": "none" if variant == "base" else variant.partition("-")[0],
        "ratio": ratio, "weights": "trained", "engine": engine, "batch": batch, "prompt": prompt,
        "generated": generated, "device": "cpu",
        "engine_config": {"dtype": "float32", "attention": "sdpa", "threads": 2, "compile": False}, "tried_configs": [],
        "load_seconds": 0.02, "cold_call_seconds": 0.05, "compile_seconds": None, "warmup_calls": 5,
        "warmup_steady": True,
        "batches": [timed_batch(float(each), batch * generated) for each in seconds],
        "latency_seconds_ratio": 1.01, "latency_agrees": True,
        "successful_batches": 30, "failed_batches": 0, "tokens_generated": 30 * batch * generated,
        "tokens_per_second": float(rate), "interval": [float(rate * 0.97), float(rate * 1.03)], "interval_share": 0.03,
        "converged": True, "drift_share": 0.001, "drifted": False, "outliers": 0,
        "time_to_first_token_seconds": first, "time_per_output_token_seconds": each,
        "inter_token_seconds": gaps.tolist(), "inter_token_p50_seconds": each,
        "inter_token_p90_seconds": 1.1 * each, "inter_token_p99_seconds": 1.4 * each,
        "prefill_tokens_per_second": batch * prompt / first, "decode_tokens_per_second": decode,
        "memory": {"before_load_bytes": 280_000_000, "after_load_bytes": loaded, "load_peak_bytes": loaded + 1_000_000,
                   "prefill_peak_bytes": peak - 100_000, "decode_peak_bytes": peak, "method": "VmHWM",
                   "reserved_peak_bytes": None, "allocated_peak_bytes": None},
        "weights_bytes": weights, "kv_bytes": kv, "least_activation_bytes": batch * (256 * prompt + 2048),
        "peak_bytes": peak, "activation_bytes": peak - loaded,
        "memory_overhead": peak / (weights + kv), "decode_step_bytes": moved, "decode_step_flops": work,
        "limit_bandwidth_bytes_per_second": bandwidth, "limit_flops_per_second": flops,
        "mbu": steps and steps * moved / bandwidth, "mfu": steps and steps * work / flops,
        "ceiling_tokens_per_second": ceiling, "ceiling_share": decode and decode / ceiling,
        "binds": "bandwidth" if moved / bandwidth > work / flops else "compute",
        "energy": None, "tokens_sha256": f"{variant}{batch}", "reference_sha256": f"{variant}{batch}",
        "rows_equal": batch, "rows_tied": 0,
    }  # fmt: skip
    return TrialRecord.model_validate(whole | changes)


def timed_batch(seconds: float, tokens: int, **changes: Any) -> dict[str, Any]:
    """A batch of a record."""
    return {"seconds": seconds, "tokens": tokens, "ok": True, "message": None} | (changes)


def comparison(
    ratios: Mapping[str, float], question: str = "variants", batch: int = 1, *, control: float = 1.0, **changes: Any
) -> ComparisonRecord:
    """A comparison whose candidates are so many times as fast as the baseline, `base` or `generate`.

    control: how many times as fast the baseline's second turn is; `noise` is the spread of a turn.
    """
    noise, rounds = changes.pop("noise", 0.02), changes.pop("rounds", 100)
    baseline = "base" if question == "variants" else "generate"
    names, speeds = [baseline, "control", *ratios], [1.0, control, *ratios.values()]
    rng = np.random.default_rng([batch, *(crc32(name.encode()) for name in names)])
    of_round = rng.lognormal(0, 0.3, (rounds, 1))  # the machine's speed, which all candidates share
    seconds = 0.01 * of_round * rng.lognormal(0, noise, (rounds, len(names))) / np.array(speeds)
    if noise == 0:
        seconds = 0.01 / np.tile(speeds, (rounds, 1))
    lengths = f"b{batch}-p4-g32"
    config = {"dtype": "float32", "attention": "sdpa", "threads": 1, "compile": False}
    candidates = []
    for name in (baseline, *ratios):
        variant, engine = (name, "lean") if question == "variants" else ("base", name)
        candidates.append(
            {"name": name, "trial": f"{variant}/{engine}/{lengths}", "variant": variant, "engine": engine,
             "engine_config": config, "tokens_sha256": "t", "rows_equal": batch, "rows_tied": 0}
        )  # fmt: skip
    whole = HEAD | {
        "stage": "comparison", "trial": f"{question}/{'lean' if question == 'variants' else 'base'}/{lengths}",
        "outcome": "ok", "message": None, "seconds": 9.0, "device": "cpu", "model": "small", "question": question,
        "spec": {"comparison": {"precision": 0.02, "seconds": 8.0}, "code": "c", "inputs": "i"},
        "machine": {"cpu_model": "Xeon", "cores": CORES, "gpus": [], "versions": {"torch": "2.13"}},
        "batch": batch, "prompt": 4, "generated": 32, "baseline": baseline,
        "candidates": candidates, "left_out": [],
        "rounds": [{"arrangement": "together", "names": names, "seconds": seconds.tolist(), "precise": True,
                    "waiting_shares": dict.fromkeys([baseline, *ratios], 0.0), "niceness": 0,
                    "orders": [rng.permutation(len(names)).tolist() for _ in range(rounds)],
                    "processes": [4 * number // rounds for number in range(rounds)]}],
    }  # fmt: skip
    return ComparisonRecord.model_validate(whole | changes)


def comparisons() -> list[ComparisonRecord]:
    """Those of the default grid: low-rank variants are slower at batch 1 and faster at 64; `lean` is eight times as
    fast as `generate`."""
    by_batch = {1: (0.91, 0.93, 0.955, 1.0), 8: (1.0, 1.01, 1.05, 1.07), 64: (1.03, 1.06, 1.1, 1.14)}
    found = [
        comparison({f"whitened-{ratio}": speed for ratio, speed in zip(RATIOS, speeds, strict=True)}, batch=batch)
        for batch, speeds in by_batch.items()
    ]
    return [comparison({"lean": 8.0, "static": 1.6, "continuous": 0.6}, "engines"), *found]


def without_speed(question: str = "variants", **changes: Any) -> ComparisonRecord:
    """A comparison whose baseline has no speed."""
    nothing: dict[str, Any] = {"rounds": [], "candidates": [], "device": None}
    said = {"outcome": "unavailable", "message": "the baseline has no speed: out_of_memory"}
    return ComparisonRecord.model_validate(comparison({"lean": 1.0}, question).to_json() | nothing | said | changes)


def changed(record: TrialRecord, **changes: Any) -> TrialRecord:
    """The record with other values."""
    return TrialRecord.model_validate(record.to_json() | changes)


def failed(outcome: str = "out_of_memory", *place: Any, **options: Any) -> TrialRecord:
    """A record of a trial without a speed; `place` as of `trial`."""
    kept = ("trial", "started", "seconds", "spec", "machine", "model", "variant", "method", "ratio", "weights",
            "engine", "batch", "prompt", "generated", "device")  # fmt: skip
    changes = {name: options.pop(name) for name in ("device", "batches", "machine") if name in options}
    whole = {"schema": 1, **trial(*place, **options).model_dump(include=set(kept)), **changes}
    return TrialRecord.model_validate(whole | {"outcome": outcome, "message": "asked for 9 GB, 3 GB were free"})


def grid(**options: Any) -> list[TrialRecord]:
    """The trials of the default grid."""
    names = ["base", *(f"whitened-{ratio}" for ratio in RATIOS)]
    places = [(name, "lean", batch, 4, 32) for name in names for batch in (1, 8, 64)]
    places += [(name, "lean", 8, 4, generated) for name in names for generated in (8, 56)]
    places += [("base", engine, 1, 4, 32) for engine in ENGINES]
    return [trial(*place, **options) for place in places]


def manifests(methods: Iterable[str] = ("whitened", "plain"), **changes: Any) -> list[Manifest]:
    """The variants of the default."""
    names = ["base", *(f"{method}-{ratio}" for method in methods for ratio in RATIOS)]
    return [manifest(name, **changes) for name in names]


def write(records: Sequence[Record], folder: Path) -> list[Path]:
    """Each record where its target is."""
    paths = [folder / f"{record.trial}.json" for record in records]
    for path, record in zip(paths, records, strict=True):
        write_json(path, record.to_json())
    return paths


def write_manifests(variants: Sequence[Manifest], folder: Path) -> list[Path]:
    """Each manifest where its target is."""
    paths = [folder / variant.variant / "manifest.json" for variant in variants]
    for path, variant in zip(paths, variants, strict=True):
        write_json(path, variant.model_dump(mode="json"))
    return paths
