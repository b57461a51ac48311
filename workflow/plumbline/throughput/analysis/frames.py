"""Records and manifests as tidy frames: a row per trial, per variant, and per variant and engine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.run.record import hardware
from plumbline.core.run.records import machine_note, machines
from plumbline.core.statistics.rates import rate_interval
from plumbline.throughput.analysis.losses import loss_difference
from plumbline.throughput.analysis.quality import is_noisy
from plumbline.throughput.analysis.rates import decoded
from plumbline.throughput.analysis.records import GIGABYTE, cell_text
from plumbline.throughput.analysis.speedups import RATIO
from plumbline.throughput.grid import main_engine
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.record import TrialRecord
from plumbline.throughput.settings import BASE

NUMBERS = (
    "load_seconds", "cold_call_seconds", "compile_seconds", "time_to_first_token_seconds",
    "time_per_output_token_seconds", "inter_token_p50_seconds", "inter_token_p90_seconds", "inter_token_p99_seconds",
    "prefill_tokens_per_second", "decode_tokens_per_second", "peak_bytes",
    "activation_bytes", "memory_overhead", "mbu", "mfu", "ceiling_tokens_per_second", "ceiling_share", "drift_share",
    "interval_share", "latency_seconds_ratio",
)  # fmt: skip
FACTS = (
    "successful_batches", "failed_batches", "tokens_generated", "converged", "warmup_steady", "drifted", "outliers",
    "latency_agrees", "binds", "device", "tokens_sha256", "rows_equal", "rows_tied",
)  # fmt: skip
OF_MAIN_CELL = (
    "tokens_per_second", "tokens_per_second_low", "tokens_per_second_high", "peak_bytes", "weights_bytes", "kv_bytes",
)  # fmt: skip
"""Columns that a variant's row copies from its trial in the main cell."""
CELL = ["batch", "prompt", "generated"]
PARTS = ("weights", "kv", "activations")
EXCESS = ("excess_nats", "excess_nats_low", "excess_nats_high")


def trials_frame(records: Sequence[TrialRecord], manifests: Sequence[Manifest]) -> pd.DataFrame:
    """One row per trial, whatever its outcome; what it did not measure is missing.

    `tokens_per_second` is Σ tokens ÷ Σ seconds over the batches with the right tokens, with its bootstrap 95% interval
    in `_low` and `_high`; `ceiling_share` has an interval over decode steps. Perplexity and parameters are the
    variant's. `needed_bytes` is the sum of `memory_parts`. `noisy` is for information (see `is_noisy`).
    `different_machines` says that not all trials ran on the same hardware, so speeds are not comparable.
    """
    known = {manifest.variant: manifest for manifest in manifests}
    different = bool(machine_note(machines(records)))
    rows = []
    for record in records:
        manifest = known.get(record.variant)
        low, high = record.interval or (None, None)
        row: dict[str, Any] = {"trial": record.trial, "model": record.model, "variant": record.variant}
        row |= {"engine": record.engine_name, "batch": record.batch, "prompt": record.prompt}
        row |= {"generated": record.generated, "outcome": record.outcome.value, "message": record.message}
        row |= {"method": record.method, "ratio": _number(record.ratio), "weights": record.weights}
        row |= {name: record.config_value(name) for name in EngineConfig.model_fields}
        row |= {"tokens_per_second": _number(record.tokens_per_second)}
        row |= {"tokens_per_second_low": _number(low), "tokens_per_second_high": _number(high)}
        row |= {name: _number(getattr(record, name)) for name in NUMBERS}
        row |= _ceiling_interval(record)
        row["after_load_bytes"] = _number(record.memory.after_load_bytes if record.memory else None)
        row |= memory_parts(record)
        row["needed_bytes"] = sum(row[f"{part}_bytes"] for part in PARTS)
        row["tokens_per_second_per_gigabyte"] = row["tokens_per_second"] / (row["needed_bytes"] / GIGABYTE)
        row["joules_per_token"] = _number(record.energy.joules_per_token if record.energy else None)
        row |= {name: getattr(record, name) for name in FACTS}
        row["noisy"] = record.ok and is_noisy(record)
        row["cpu_pressure_percent"] = _number(record.machine.get("cpu_pressure_some_avg10_percent"))
        row["perplexity"] = _number(manifest.perplexity if manifest else None)
        row["parameters"] = manifest.parameters if manifest else None
        row |= {"seconds": record.seconds, "machine": hardware(record.machine, record.device)}
        rows.append(row | {"different_machines": different})
    frame = pd.DataFrame(rows)
    frame["parameters"] = frame["parameters"].astype("Int64")
    return frame


def memory_parts(record: TrialRecord) -> dict[str, float]:
    """What a trial needs memory for, in bytes: weights, KV cache and activations; missing where it did not get so far.

    Weights and cache are counted from their tensors. Activations: on a GPU the rest of the allocated peak; on a CPU,
    where only the whole process's memory is known, the least that they take (see `least_activation_bytes`).
    """
    weights, cache = _number(record.weights_bytes), _number(record.kv_bytes)
    activations = _number(record.least_activation_bytes)
    if record.memory and record.memory.allocated_peak_bytes is not None:
        activations = max(activations, record.memory.allocated_peak_bytes - weights - cache)
    return {"weights_bytes": weights, "kv_bytes": cache, "activations_bytes": activations}


def variants_frame(manifests: Sequence[Manifest], trials: pd.DataFrame, speedups: pd.DataFrame) -> pd.DataFrame:
    """One row per variant: method, ratio, parameters, perplexity, and its figures in the main cell (see `main_cell`).

    `ratio` is the share of each linear layer's parameters that was asked for, `reached` the share of the parameters in
    the decoder blocks' matrices that is left: ranks are whole numbers, and what is no linear layer stays as it is.

    `excess_nats` is its loss above the base's, in nats per token, paired over the held-out windows, with the bootstrap
    95% interval in `_low` and `_high`. `speedup` is how many times as fast as the base it is there, by the comparison
    of the variants: see `with_speedup`.
    """
    place = main_cell(trials, speedups)
    there = _at(trials, place).set_index("variant")
    base = next((manifest for manifest in manifests if manifest.variant == BASE), None)
    rows = []
    for manifest in manifests:
        row = manifest.model_dump(include={"variant", "method", "parameters", "outcome", "message"})
        row |= {"ratio": _number(manifest.ratio), "reached": _number(manifest.reached)}
        row |= {"perplexity": _number(manifest.perplexity), "evaluation_tokens": manifest.evaluation_tokens}
        row |= dict(zip(EXCESS, loss_difference(manifest, base), strict=True))
        row["calibration"] = manifest.calibration and manifest.calibration.source
        for name in OF_MAIN_CELL:
            row[name] = float(there[name].get(manifest.variant, np.nan))
        rows.append(row)
    frame = pd.DataFrame(rows)
    counts = ["parameters", "evaluation_tokens"]
    frame[counts] = frame[counts].astype("Int64")
    return with_speedup(frame, place, speedups)


def with_speedup(frame: pd.DataFrame, place: dict[str, Any], speedups: pd.DataFrame) -> pd.DataFrame:
    """`frame`, a row per variant, with how many times as fast as the base each is at `place`.

    `speedup` with its interval in `_low` and `_high`, its `_verdict`, and the A/A control of the comparison with its
    interval in `_control`, `_control_low` and `_control_high`. Of the base, only the control. Missing where there is
    no such comparison.
    """
    compared = _at(speedups[speedups["question"] == "variants"], place).set_index("candidate")
    names = {name: name.replace("ratio", "speedup") if "ratio" in name else f"speedup_{name}" for name in RATIO}
    found = compared[list(RATIO)].rename(columns=names)
    if len(found):
        controls = [name for name in found.columns if "control" in name]
        found.loc[BASE, controls] = found[controls].iloc[0]
    return frame.merge(found, how="left", left_on="variant", right_index=True)


def statistics_frame(trials: pd.DataFrame, speedups: pd.DataFrame) -> pd.DataFrame:
    """One row per variant and engine, over its batches and lengths.

    Number of trials by outcome; minimum, median and maximum over trials of their tokens per second; lowest and highest
    peak memory; and, with the engine of the main cell, the `speedup` there (see `with_speedup`), named `speedup_cell`.
    """
    place = main_cell(trials, speedups)
    rows = []
    for (variant, engine), group in trials.groupby(["variant", "engine"], sort=False):
        good = group[group["outcome"] == "ok"]
        row: dict[str, Any] = {"variant": variant, "engine": engine, "ratio": group["ratio"].iloc[0]}
        row |= {"method": group["method"].iloc[0], "trials": len(group), "ok": len(good)}
        row |= {name: int((group["outcome"] == name).sum()) for name in ("out_of_memory", "timeout")}
        row["other_outcomes"] = len(group) - row["ok"] - row["out_of_memory"] - row["timeout"]
        for name in ("min", "median", "max"):
            row[f"tokens_per_second_{name}"] = good["tokens_per_second"].agg(name)
        row |= {"peak_bytes_min": good["peak_bytes"].min(), "peak_bytes_max": good["peak_bytes"].max()}
        rows.append(row | {"perplexity": group["perplexity"].iloc[0], "speedup_cell": cell_text(place)})
    frame = with_speedup(pd.DataFrame(rows), place, speedups)
    of_others = frame["engine"] != place["engine"]
    frame.loc[of_others, [name for name in frame.columns if name.startswith("speedup")]] = None
    return frame


def main_cell(trials: pd.DataFrame, speedups: pd.DataFrame) -> dict[str, Any]:
    """Engine, batch, prompt and generated where most variants are compared; on a tie, the smallest batch.

    Where none is, the cell with most successful trials; where none succeeded, with most trials.
    """
    compared = speedups[speedups["question"] == "variants"]
    good = trials[trials["outcome"] == "ok"]
    among = next(frame for frame in (compared, good, trials) if len(frame))
    counts = among.groupby(["engine", *CELL]).size().reset_index(name="trials")
    counts["other"] = counts["engine"] != main_engine(list(trials["engine"]))
    order = counts.sort_values(["trials", "other", *CELL, "engine"], ascending=[False, *[True] * 5])
    first = order.iloc[0]
    return {"engine": str(first["engine"]), **{name: int(first[name]) for name in CELL}}


def _ceiling_interval(record: TrialRecord) -> dict[str, float]:
    """Ends of the interval of `ceiling_share`, over the decode steps that the share was computed from."""
    ceiling = _number(record.ceiling_tokens_per_second)
    low, high = rate_interval(decoded(record))
    return {"ceiling_share_low": low / ceiling, "ceiling_share_high": high / ceiling}


def _at(frame: pd.DataFrame, place: dict[str, Any]) -> pd.DataFrame:
    return frame[np.logical_and.reduce([frame[name] == value for name, value in place.items()])]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
