"""Records and manifests as tidy frames: a row per trial, per variant, and per variant and engine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.registry import short_name
from plumbline.core.run.record import hardware
from plumbline.core.run.records import machine_note, machines
from plumbline.core.statistics.rates import Ratio, mean_ratio, rate, rate_interval, rate_ratio
from plumbline.throughput.analysis.quality import noise_sources
from plumbline.throughput.analysis.rates import decoded, timed
from plumbline.throughput.analysis.records import GIGABYTE, main_engine
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.record import TrialRecord
from plumbline.throughput.settings import BASE, EngineConfig

NUMBERS = (
    "load_seconds", "cold_call_seconds", "compile_seconds", "time_to_first_token_seconds",
    "time_per_output_token_seconds", "inter_token_p50_seconds", "inter_token_p90_seconds", "inter_token_p99_seconds",
    "prefill_tokens_per_second", "decode_tokens_per_second", "weights_bytes", "kv_bytes", "peak_bytes",
    "activation_bytes", "memory_overhead", "mbu", "mfu", "ceiling_tokens_per_second", "ceiling_share", "drift_share",
    "interval_share",
)  # fmt: skip
FACTS = (
    "successful_batches", "failed_batches", "tokens_generated", "converged", "warmup_steady", "drifted", "outliers",
    "slowed", "slowed_batches", "latency_slowed", "binds", "device", "tokens_sha256", "rows_equal", "rows_tied",
)  # fmt: skip
OF_MAIN_CELL = (
    "tokens_per_second", "tokens_per_second_low", "tokens_per_second_high", "peak_bytes", "weights_bytes", "kv_bytes",
)  # fmt: skip
"""Columns that a variant's row copies from its trial in the main cell."""
REFERENCE_ENGINE = "generate"
CELL = ["batch", "prompt", "generated"]
PLACE = ("variant", "engine", *CELL)
"""Fields of a record that identify its trial."""
ONE = Ratio(value=1.0, low=1.0, high=1.0)
"""The base against itself."""


def trials_frame(records: Sequence[TrialRecord], manifests: Sequence[Manifest]) -> pd.DataFrame:
    """One row per trial, whatever its outcome; what it did not measure is missing.

    `tokens_per_second` is Σ tokens ÷ Σ seconds over the batches that count, with its bootstrap 95% interval in `_low`
    and `_high`; `ceiling_share` has an interval over decode steps. Perplexity and parameters are the variant's.
    `noisy` lists what makes a successful trial noisy (keys of NOISE_SOURCES); it is empty where nothing does.
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
        row["tokens_per_second_per_gigabyte"] = row["tokens_per_second"] / (row["peak_bytes"] / GIGABYTE)
        row["joules_per_token"] = _number(record.energy.joules_per_token if record.energy else None)
        row |= {name: getattr(record, name) for name in FACTS}
        row["noisy"] = _noisy(record) if record.ok else ""
        row["cpu_pressure_percent"] = _number(record.machine.get("cpu_pressure_some_avg10_percent"))
        row["perplexity"] = _number(manifest.perplexity if manifest else None)
        row["parameters"] = manifest.parameters if manifest else None
        row |= {"seconds": record.seconds, "machine": hardware(record.machine, record.device)}
        rows.append(row | {"different_machines": different})
    frame = pd.DataFrame(rows)
    frame["parameters"] = frame["parameters"].astype("Int64")
    return frame


def variants_frame(manifests: Sequence[Manifest], records: Sequence[TrialRecord], trials: pd.DataFrame) -> pd.DataFrame:
    """One row per variant: method, ratio, parameters, perplexity, and its speed relative to the base.

    The speed is that of the main cell (see `main_cell`); `speedup` is the rate over the base's there, with its
    interval in `_low` and `_high`, missing where the variant or the base has no successful trial there. `noisy` lists
    what makes either noisy, `dtypes` what both compute in where that differs: `bfloat16 against float32`.
    """
    place = main_cell(trials)
    there = {record.variant: record for record in records if _is_at(record, place)}
    base = there.get(BASE)
    rows = []
    for manifest in manifests:
        record = there.get(manifest.variant)
        row = manifest.model_dump(include={"variant", "method", "parameters", "outcome", "message"})
        row |= {"ratio": _number(manifest.ratio)}
        row |= {"perplexity": _number(manifest.perplexity), "evaluation_tokens": manifest.evaluation_tokens}
        row["calibration"] = manifest.calibration and manifest.calibration.source
        trial = trials[trials["trial"] == (record.trial if record else None)]
        for name in OF_MAIN_CELL:
            row[name] = float(trial[name].iloc[0]) if len(trial) else np.nan
        sides = [side for side in (record, base) if side is not None]
        row |= {"noisy": _noisy(*sides), "dtypes": _dtypes(*sides)}
        speedup = _over(record, base)
        row |= {"speedup": speedup.value, "speedup_low": speedup.low, "speedup_high": speedup.high}
        rows.append(row)
    frame = pd.DataFrame(rows)
    counts = ["parameters", "evaluation_tokens"]
    frame[counts] = frame[counts].astype("Int64")
    return frame


def contrasts_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row per pair of successful trials with the same batch and lengths: the ratio of their rates, with interval.

    `kind` engine: an engine against `generate` (where that has no speed, against the first by name) with the same
    variant. `kind` variant: a variant against the base with the same engine. The interval covers the spread of the
    batches within the two processes; `noisy` and `dtypes` are as in `variants_frame`.
    """
    good = {tuple(getattr(record, name) for name in PLACE): record for record in records if len(timed(record))}
    rows = []
    for (variant, engine, *cell), record in good.items():
        alike = sorted(key[1] for key in good if (key[0], *key[2:]) == (variant, *cell))
        reference = REFERENCE_ENGINE if REFERENCE_ENGINE in alike else alike[0]
        for kind, key in (("engine", (variant, reference, *cell)), ("variant", (BASE, engine, *cell))):
            if key in good and good[key] is not record:
                ratio = rate_ratio(timed(record), timed(good[key]))
                row = {"kind": kind, "trial": record.trial, "baseline": good[key].trial}
                row |= dict(zip(PLACE, (variant, short_name(engine), *cell), strict=True))
                row |= {"baseline_variant": key[0], "baseline_engine": short_name(key[1])}
                row |= {"noisy": _noisy(record, good[key]), "dtypes": _dtypes(record, good[key])}
                rows.append(row | {"ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high})
    columns = ["kind", "trial", "baseline", *PLACE, "baseline_variant", "baseline_engine", "noisy", "dtypes"]
    return pd.DataFrame(rows, columns=[*columns, "ratio", "ratio_low", "ratio_high"])


def statistics_frame(records: Sequence[TrialRecord], trials: pd.DataFrame) -> pd.DataFrame:
    """One row per variant and engine, over its batches and lengths.

    Number of trials by outcome; tokens per second of all batches together (Σ tokens ÷ Σ seconds), and the minimum,
    median and maximum over trials; lowest and highest peak memory; and `speedup_over_base`, the geometric mean over
    the cells shared with the base, with its interval over batches.
    """
    by_trial = {record.trial: record for record in records}
    rows = []
    for (variant, engine), group in trials.groupby(["variant", "engine"], sort=False):
        good = group[group["outcome"] == "ok"]
        row: dict[str, Any] = {"variant": variant, "engine": engine, "ratio": group["ratio"].iloc[0]}
        row |= {"method": group["method"].iloc[0], "trials": len(group), "ok": len(good)}
        row |= {name: int((group["outcome"] == name).sum()) for name in ("out_of_memory", "timeout")}
        row["other_outcomes"] = len(group) - row["ok"] - row["out_of_memory"] - row["timeout"]
        batches = [timed(by_trial[trial]) for trial in good["trial"]]
        row["tokens_per_second_overall"] = rate(np.concatenate(batches)) if batches else np.nan
        for name in ("min", "median", "max"):
            row[f"tokens_per_second_{name}"] = good["tokens_per_second"].agg(name)
        row |= {"peak_bytes_min": good["peak_bytes"].min(), "peak_bytes_max": good["peak_bytes"].max()}
        row["perplexity"] = group["perplexity"].iloc[0]
        base = trials[(trials["variant"] == BASE) & (trials["engine"] == engine) & (trials["outcome"] == "ok")]
        shared = good.merge(base, on=CELL, suffixes=("", "_base"))
        pairs = zip(shared["trial"], shared["trial_base"], strict=True)
        ratio = ONE if variant == BASE else _mean([(timed(by_trial[a]), timed(by_trial[b])) for a, b in pairs])
        row |= {"cells_shared_with_base": len(shared), "speedup_over_base": ratio.value}
        row |= {"speedup_over_base_low": ratio.low, "speedup_over_base_high": ratio.high}
        rows.append(row)
    return pd.DataFrame(rows)


def main_cell(trials: pd.DataFrame) -> dict[str, Any]:
    """Engine, batch, prompt and generated where most variants have a successful trial; on a tie, the smallest batch.

    Where no trial succeeded, the cell with most trials.
    """
    among = trials[trials["outcome"] == "ok"]
    counts = (among if len(among) else trials).groupby(["engine", *CELL]).size().reset_index(name="trials")
    counts["other"] = counts["engine"] != main_engine(list(trials["engine"]))
    order = counts.sort_values(["trials", "other", *CELL, "engine"], ascending=[False, *[True] * 5])
    first = order.iloc[0]
    return {"engine": str(first["engine"]), **{name: int(first[name]) for name in CELL}}


def _ceiling_interval(record: TrialRecord) -> dict[str, float]:
    """Ends of the interval of `ceiling_share`, over the decode steps that the share was computed from."""
    ceiling = _number(record.ceiling_tokens_per_second)
    low, high = rate_interval(decoded(record))
    return {"ceiling_share_low": low / ceiling, "ceiling_share_high": high / ceiling}


def _is_at(record: TrialRecord, place: dict[str, Any]) -> bool:
    cell = {"engine": record.engine_name, **{name: getattr(record, name) for name in CELL}}
    return record.ok and cell == place


def _noisy(*records: TrialRecord) -> str:
    """What makes any of the trials noisy: `busy drifted`."""
    return " ".join(dict.fromkeys(name for record in records for name in noise_sources(record)))


def _dtypes(*records: TrialRecord) -> str:
    names = [str(record.config_value("dtype")) for record in records]
    return " against ".join(names) if len(set(names)) > 1 else ""


def _over(record: TrialRecord | None, base: TrialRecord | None) -> Ratio:
    """The rate of a record over the base's; NaN where there is none, 1 without interval for the base itself."""
    if record is None or base is None:
        return _mean([])
    return ONE if record is base else rate_ratio(timed(record), timed(base))


def _mean(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Ratio:
    return mean_ratio(pairs) if pairs else Ratio(value=np.nan, low=np.nan, high=np.nan)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
