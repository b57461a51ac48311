"""Trials as lines of evaluation_results.jsonl, under the names that scripts for this file know."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from plumbline.core.registry import short_name
from plumbline.core.run.record import Outcome
from plumbline.throughput.analysis.rates import timed
from plumbline.throughput.analysis.records import GIGABYTE, main_engine, ratio_of
from plumbline.throughput.models.manifest import Manifest


def evaluation_lines(records: Sequence[dict[str, Any]], manifests: Sequence[Manifest]) -> list[dict[str, Any]]:
    """A flat dict per trial, in the order of `records`; what a trial did not find is None, never 0.

    Memory in GB is in 10^9 bytes. `total_peak_memory_gb` is the higher of the peaks of prefill and decode;
    `activation_memory_gb` that minus what was held after loading. `failed_batches` counts each failed batch once;
    `successful_batches` are those that count, and so are rate, time and tokens.
    """
    folders = {manifest.variant: manifest.folder for manifest in manifests}
    base = next((manifest.folder for manifest in manifests if manifest.parent is None), None)
    perplexity = {manifest.variant: manifest.perplexity for manifest in manifests}
    names, failures = experiment_ids(records), oom_runs(records)
    lines = []
    for record in records:
        good = timed(record)
        choice = record.get("choice") or {}
        line: dict[str, Any] = {"timestamp": record.get("started"), "experiment_id": names[record["trial"]]}
        line |= {"model": record["model"], "model_base": base, "updated_model_path": folders.get(record["variant"])}
        line |= {"variant": record["variant"], "method": record.get("method"), "ratio": ratio_of(record)}
        line |= {"weights": record.get("weights"), "engine": short_name(record["engine"])}
        line |= {"batch_size": record["batch"], "seq_len": record["prompt"], "prompt_length": record["prompt"]}
        line |= {"generated_len": record["generated"], "generation_length": record["generated"]}
        line |= {"seed": (record.get("spec") or {}).get("seed"), "device": record.get("device")}
        line |= {name: choice.get(name) for name in ("dtype", "attention", "threads", "compile")}
        line["pytorch_version"] = (record["machine"].get("versions") or {}).get("torch")
        line["success"] = record["outcome"] == Outcome.OK
        line |= {"outcome": record["outcome"], "error": None if line["success"] else _error(record)}
        line["throughput_tokens_per_sec"] = record.get("tokens_per_second")
        ends = record.get("interval") or (None, None)
        line |= {"throughput_ci95_low": ends[0], "throughput_ci95_high": ends[1]}
        for name, source in (
            ("total_peak_memory_gb", "peak_bytes"),
            ("activation_memory_gb", "activation_bytes"),
            ("weight_memory_gb", "weights_bytes"),
            ("kv_cache_memory_gb", "kv_bytes"),
        ):
            line[name] = None if record.get(source) is None else record[source] / GIGABYTE
        line |= {"successful_batches": len(good), "failed_batches": _failed(record)}
        line["evaluation_batches"] = len(good)
        line["avg_batch_time_sec"] = float(good[:, 0].mean()) if len(good) else None
        line["total_tokens_generated"] = int(good[:, 1].sum())
        line["consecutive_oom_failures"] = failures[record["trial"]]
        line["time_to_first_token_sec"] = record.get("time_to_first_token_seconds")
        line["time_per_output_token_sec"] = record.get("time_per_output_token_seconds")
        line |= {"load_time_sec": record.get("load_seconds"), "perplexity": perplexity.get(record["variant"])}
        line |= {"trial": record["trial"]}
        lines.append(line)
    return lines


def experiment_ids(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Trial -> `{model}_r{ratio}_b{batch}_g{length}`, each once.

    What that leaves out is added where it is not the grid's usual: the engine, the prompt's length, and the variant
    where several have the ratio. A variant without a ratio has its name in the ratio's place.
    """
    engine = main_engine([record["engine"] for record in records])
    prompt = _usual(record["prompt"] for record in records)
    usual = {
        ratio: _usual(record["variant"] for record in records if ratio_of(record) == ratio)
        for ratio in {ratio_of(record) for record in records}
    }
    names = {}
    for record in records:
        ratio = ratio_of(record)
        share = f"_{record['variant']}" if ratio is None else f"_r{round(ratio, 4)}"
        name = f"{record['model']}{share}_b{record['batch']}_g{record['generated']}"
        if ratio is not None and record["variant"] != usual[ratio]:
            name += f"_{record['variant']}"
        if record["prompt"] != prompt:
            name += f"_p{record['prompt']}"
        if short_name(record["engine"]) != engine:
            name += f"_{short_name(record['engine'])}"
        names[record["trial"]] = name
    return names


def oom_runs(records: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Trial -> how many trials up to it, along the rising batch of its cell, ran out of memory one after the other."""
    runs: dict[str, int] = {}
    running: Counter[tuple[Any, ...]] = Counter()
    for record in sorted(records, key=lambda record: int(record["batch"])):
        cell = tuple(record[name] for name in ("variant", "engine", "prompt", "generated"))
        running[cell] = running[cell] + 1 if record["outcome"] == Outcome.OUT_OF_MEMORY else 0
        runs[record["trial"]] = running[cell]
    return runs


def _failed(record: dict[str, Any]) -> int:
    """Failed batches, each once; a trial that ran out of memory before any batch was timed has failed at one."""
    failed = sum(not batch["ok"] for batch in record.get("batches") or [])
    return failed or int(record["outcome"] == Outcome.OUT_OF_MEMORY)


def _error(record: dict[str, Any]) -> str:
    return str(record.get("message") or record["outcome"])


def _usual(values: Iterable[Hashable]) -> Hashable:
    """The most frequent value; of several, the first."""
    return Counter(values).most_common(1)[0][0]
