"""Trials as lines of evaluation_results.jsonl, under the names that existing scripts expect."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from plumbline.core.run.record import Outcome
from plumbline.throughput.analysis.rates import timed
from plumbline.throughput.analysis.records import GIGABYTE
from plumbline.throughput.grid import main_engine
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.record import TrialRecord


def evaluation_lines(records: Sequence[TrialRecord], manifests: Sequence[Manifest]) -> list[dict[str, Any]]:
    """A flat dict per trial, in the order of `records`; what a trial did not measure is None, never 0.

    Memory is in GB of 10^9 bytes. `total_peak_memory_gb` is the higher of the peaks of prefill and decode;
    `activation_memory_gb` is that minus what was held after loading. `failed_batches` counts each failed batch once;
    `successful_batches`, rate, time and tokens are of the batches with the right tokens.
    """
    folders = {manifest.variant: manifest.folder for manifest in manifests}
    base = next((manifest.folder for manifest in manifests if manifest.parent is None), None)
    perplexity = {manifest.variant: manifest.perplexity for manifest in manifests}
    names, failures = experiment_ids(records), oom_runs(records)
    lines = []
    for record in records:
        good = timed(record)
        line: dict[str, Any] = {"timestamp": record.started, "experiment_id": names[record.trial]}
        line |= {"model": record.model, "model_base": base, "updated_model_path": folders.get(record.variant)}
        line |= {"variant": record.variant, "method": record.method, "ratio": record.ratio}
        line |= {"weights": record.weights, "engine": record.engine_name}
        line |= {"batch_size": record.batch, "seq_len": record.prompt, "prompt_length": record.prompt}
        line |= {"generated_len": record.generated, "generation_length": record.generated}
        line |= {"seed": record.spec.get("seed"), "device": record.device}
        line |= {name: record.config_value(name) for name in EngineConfig.model_fields}
        line["pytorch_version"] = (record.machine.get("versions") or {}).get("torch")
        line |= {"success": record.ok, "outcome": record.outcome.value}
        line["error"] = None if record.ok else record.message or record.outcome.value
        line["throughput_tokens_per_sec"] = record.tokens_per_second
        ends = record.interval or (None, None)
        line |= {"throughput_ci95_low": ends[0], "throughput_ci95_high": ends[1]}
        for name, count in (
            ("total_peak_memory_gb", record.peak_bytes),
            ("activation_memory_gb", record.activation_bytes),
            ("weight_memory_gb", record.weights_bytes),
            ("kv_cache_memory_gb", record.kv_bytes),
        ):
            line[name] = None if count is None else count / GIGABYTE
        line |= {"successful_batches": len(good), "failed_batches": _failed(record)}
        line["evaluation_batches"] = len(good)
        line["avg_batch_time_sec"] = float(good[:, 0].mean()) if len(good) else None
        line["total_tokens_generated"] = int(good[:, 1].sum())
        line["consecutive_oom_failures"] = failures[record.trial]
        line["time_to_first_token_sec"] = record.time_to_first_token_seconds
        line["time_per_output_token_sec"] = record.time_per_output_token_seconds
        line |= {"load_time_sec": record.load_seconds, "perplexity": perplexity.get(record.variant)}
        line |= {"trial": record.trial}
        lines.append(line)
    return lines


def experiment_ids(records: Sequence[TrialRecord]) -> dict[str, str]:
    """Trial -> `{model}_r{ratio}_b{batch}_g{length}`, each unique.

    Whatever else differs from the grid's usual is appended: the engine, the prompt's length, and the variant where
    several have the same ratio. A variant without a ratio has its name in place of the ratio.
    """
    engine = main_engine([record.engine for record in records])
    prompt = _usual(record.prompt for record in records)
    usual = {
        ratio: _usual(record.variant for record in records if record.ratio == ratio)
        for ratio in {record.ratio for record in records}
    }
    names = {}
    for record in records:
        ratio = record.ratio
        share = f"_{record.variant}" if ratio is None else f"_r{round(ratio, 4)}"
        name = f"{record.model}{share}_b{record.batch}_g{record.generated}"
        if ratio is not None and record.variant != usual[ratio]:
            name += f"_{record.variant}"
        if record.prompt != prompt:
            name += f"_p{record.prompt}"
        if record.engine_name != engine:
            name += f"_{record.engine_name}"
        names[record.trial] = name
    return names


def oom_runs(records: Sequence[TrialRecord]) -> dict[str, int]:
    """Trial -> length of the run of out-of-memory trials that ends with it, along the rising batch of its cell."""
    runs: dict[str, int] = {}
    running: Counter[tuple[Any, ...]] = Counter()
    for record in sorted(records, key=lambda record: record.batch):
        cell = (record.variant, record.engine, record.prompt, record.generated)
        running[cell] = running[cell] + 1 if record.outcome is Outcome.OUT_OF_MEMORY else 0
        runs[record.trial] = running[cell]
    return runs


def _failed(record: TrialRecord) -> int:
    """Failed batches, each once; a trial that ran out of memory before any batch was timed failed at one."""
    failed = sum(not batch.ok for batch in record.batches)
    return failed or int(record.outcome is Outcome.OUT_OF_MEMORY)


def _usual(values: Iterable[Hashable]) -> Hashable:
    """The most frequent value; on a tie, the first."""
    return Counter(values).most_common(1)[0][0]
