"""Records and manifests as tidy frames: a row per trial, per variant, and per variant and engine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.registry import short_name
from plumbline.core.run.record import machine_name
from plumbline.core.statistics.rates import Ratio, mean_ratio, rate, rate_interval, rate_ratio
from plumbline.throughput.analysis.quality import disturbances
from plumbline.throughput.analysis.rates import decoded, timed
from plumbline.throughput.analysis.records import (
    GIGABYTE,
    PLACE,
    machine_note,
    main_engine,
    ratio_of,
)
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.settings import BASE

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
PLACED = (
    "tokens_per_second", "tokens_per_second_low", "tokens_per_second_high", "peak_bytes", "weights_bytes", "kv_bytes",
)  # fmt: skip
"""What a variant's row has of its trial in the main cell."""
REFERENCE_ENGINE = "generate"
CELL = ["batch", "prompt", "generated"]
ONE = Ratio(value=1.0, low=1.0, high=1.0)
"""What the base is against itself."""


def trials_frame(records: Sequence[dict[str, Any]], manifests: Sequence[Manifest]) -> pd.DataFrame:
    """One row per trial, whatever it found; what it did not find is missing.

    `tokens_per_second` is Σ tokens ÷ Σ seconds over the batches that count, `_low` and `_high` its bootstrap 95%
    interval; `ceiling_share` has its own over decode steps. Perplexity and parameters are the variant's. `disturbed`
    names what of DISTURBANCES spoils a good trial's speed; it is empty where nothing does.
    `different_machines` says that not all trials ran on the same hardware, so that speeds compare badly.
    """
    known = {manifest.variant: manifest for manifest in manifests}
    different = bool(machine_note(records))
    rows = []
    for record in records:
        manifest = known.get(record["variant"])
        choice = record.get("choice") or {}
        low, high = record.get("interval") or (None, None)
        row: dict[str, Any] = {name: record.get(name) for name in ("trial", "model", *PLACE, "outcome", "message")}
        row |= {"method": record.get("method"), "ratio": _number(ratio_of(record)), "weights": record.get("weights")}
        row["engine"] = short_name(record["engine"])
        row |= {name: choice.get(name) for name in ("dtype", "attention", "threads", "compile")}
        row |= {"tokens_per_second": _number(record.get("tokens_per_second"))}
        row |= {"tokens_per_second_low": _number(low), "tokens_per_second_high": _number(high)}
        row |= {name: _number(record.get(name)) for name in NUMBERS}
        row |= _ceiling_interval(record)
        row["after_load_bytes"] = _number((record.get("memory") or {}).get("after_load_bytes"))
        row["tokens_per_second_per_gigabyte"] = row["tokens_per_second"] / (row["peak_bytes"] / GIGABYTE)
        row["joules_per_token"] = _number((record.get("energy") or {}).get("joules_per_token"))
        row |= {name: record.get(name) for name in FACTS}
        row["disturbed"] = _disturbed(record) if record["outcome"] == "ok" else ""
        row["cpu_pressure_percent"] = _number(record["machine"].get("cpu_pressure_some_avg10_percent"))
        row |= {"perplexity": _number(manifest and manifest.perplexity), "parameters": manifest and manifest.parameters}
        row |= {"seconds": record.get("seconds"), "machine": machine_name(record), "different_machines": different}
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame["parameters"] = frame["parameters"].astype("Int64")
    return frame


def variants_frame(
    manifests: Sequence[Manifest], records: Sequence[dict[str, Any]], trials: pd.DataFrame
) -> pd.DataFrame:
    """One row per variant: method, ratio, parameters, perplexity, and its speed against the base's.

    The speed is that of the cell which `main_cell` names; `speedup` is the rate over the base's there, with
    its interval `_low`, `_high`. Missing where the variant or the base has no good trial there. `disturbed` names what
    spoils either, `dtypes` what both compute in where that differs: `bfloat16 against float32`.
    """
    place = main_cell(trials)
    there = {record["variant"]: record for record in records if _at(record, place)}
    rows = []
    for manifest in manifests:
        row = manifest.model_dump(include={"variant", "method", "parameters", "outcome", "message"})
        row |= {"ratio": _number(ratio_of(row | {"ratio": manifest.ratio}))}
        row |= {"perplexity": _number(manifest.perplexity), "evaluation_tokens": manifest.evaluation_tokens}
        row["calibration"] = manifest.calibration and manifest.calibration.source
        mine = trials[trials["trial"] == there.get(manifest.variant, {}).get("trial")]
        for name in PLACED:
            row[name] = float(mine[name].iloc[0]) if len(mine) else np.nan
        sides = [record for record in (there.get(manifest.variant), there.get(BASE)) if record is not None]
        row |= {"disturbed": _disturbed(*sides), "dtypes": _dtypes(*sides)}
        speedup = _over(there.get(manifest.variant), there.get(BASE))
        row |= {"speedup": speedup.value, "speedup_low": speedup.low, "speedup_high": speedup.high}
        rows.append(row)
    frame = pd.DataFrame(rows)
    counts = ["parameters", "evaluation_tokens"]
    frame[counts] = frame[counts].astype("Int64")
    return frame


def contrasts_frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per comparison of two good trials of the same batch and lengths: how many times as fast, with interval.

    `kind` engine: an engine against `generate` (where that gave nothing, against the first by name) with the same
    variant; `kind` variant: a variant against the base with the same engine. The interval covers the spread of the
    batches within the two processes; `disturbed` and `dtypes` are as of `variants_frame`.
    """
    good = {tuple(record[name] for name in PLACE): record for record in records if len(timed(record))}
    rows = []
    for (variant, engine, *cell), record in good.items():
        alike = sorted(key[1] for key in good if (key[0], *key[2:]) == (variant, *cell))
        reference = REFERENCE_ENGINE if REFERENCE_ENGINE in alike else alike[0]
        for kind, key in (("engine", (variant, reference, *cell)), ("variant", (BASE, engine, *cell))):
            if key in good and good[key] is not record:
                ratio = rate_ratio(timed(record), timed(good[key]))
                row = {"kind": kind, "trial": record["trial"], "baseline": good[key]["trial"]}
                row |= dict(zip(PLACE, (variant, short_name(engine), *cell), strict=True))
                row |= {"baseline_variant": key[0], "baseline_engine": short_name(key[1])}
                row |= {"disturbed": _disturbed(record, good[key]), "dtypes": _dtypes(record, good[key])}
                rows.append(row | {"ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high})
    columns = ["kind", "trial", "baseline", *PLACE, "baseline_variant", "baseline_engine", "disturbed", "dtypes"]
    return pd.DataFrame(rows, columns=[*columns, "ratio", "ratio_low", "ratio_high"])


def statistics_frame(records: Sequence[dict[str, Any]], trials: pd.DataFrame) -> pd.DataFrame:
    """One row per variant and engine, over its batches and lengths.

    How many trials, and with which outcome; tokens per second: of all batches together (Σ tokens ÷ Σ seconds), least,
    median and greatest of the trials; least and greatest peak; `speedup_over_base`, the geometric mean over the
    cells that it shares with the base, with its interval over batches.
    """
    by_trial = {record["trial"]: record for record in records}
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
    """Engine, batch, prompt and generated where most variants gave a good trial; of several, the least batch.

    Where no trial is good, where there are most trials.
    """
    among = trials[trials["outcome"] == "ok"]
    counts = (among if len(among) else trials).groupby(["engine", *CELL]).size().reset_index(name="trials")
    counts["other"] = counts["engine"] != main_engine(list(trials["engine"]))
    order = counts.sort_values(["trials", "other", *CELL, "engine"], ascending=[False, *[True] * 5])
    first = order.iloc[0]
    return {"engine": str(first["engine"]), **{name: int(first[name]) for name in CELL}}


def _ceiling_interval(record: dict[str, Any]) -> dict[str, float]:
    """Ends of the interval of `ceiling_share`, over the decode steps that the share was computed from."""
    ceiling = _number(record.get("ceiling_tokens_per_second"))
    low, high = rate_interval(decoded(record))
    return {"ceiling_share_low": low / ceiling, "ceiling_share_high": high / ceiling}


def _at(record: dict[str, Any], place: dict[str, Any]) -> bool:
    return record["outcome"] == "ok" and place == {
        "engine": short_name(record["engine"]),
        **{name: record[name] for name in CELL},
    }


def _disturbed(*records: dict[str, Any]) -> str:
    """What disturbed any of the trials: `busy drifted`."""
    return " ".join(dict.fromkeys(name for record in records for name in disturbances(record)))


def _dtypes(*records: dict[str, Any]) -> str:
    names = [str((record.get("choice") or {}).get("dtype")) for record in records]
    return " against ".join(names) if len(set(names)) > 1 else ""


def _over(record: dict[str, Any] | None, base: dict[str, Any] | None) -> Ratio:
    """The rate of a record over the base's; NaN where there is none, one without interval against itself."""
    if record is None or base is None:
        return _mean([])
    return ONE if record is base else rate_ratio(timed(record), timed(base))


def _mean(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Ratio:
    return mean_ratio(pairs) if pairs else Ratio(value=np.nan, low=np.nan, high=np.nan)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
