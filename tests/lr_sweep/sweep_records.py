"""Plausible trials of a sweep, drawn at random, for the tests of its analysis, tables and figures."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.core.measure.spans import SPANS

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
INITIAL, ENTROPY = 6.26, 5.05
COLUMNS = (
    "step", "wallclock_time", "elapsed_time", "train_loss", "val_loss", "val_perplexity", "learning_rate",
    "grad_norm", "tokens_per_second", "data_wait_seconds",
)  # fmt: skip


def trial(rate: float, seed: int, kind: str = "converged", **options: Any) -> dict[str, Any]:
    """A record and, as `metrics`, the rows of its metrics.csv; `loss` sets its final validation loss."""
    rng = np.random.default_rng([seed, int(1e6 * rate)])
    usual = {"plateaued": ENTROPY + 0.04, "diverged": math.nan}
    bowl = 3.55 + 0.16 * math.log10(rate / 0.04) ** 2 + rng.normal(0, 0.012)
    final = float(options.get("loss", usual.get(kind, bowl)))
    steps = np.arange(50, 301, 50)
    fall = np.exp(-steps / 80)
    curve = (final if math.isfinite(final) else INITIAL + 1) + (INITIAL - min(final, 5.0)) * fall
    if kind == "diverged":
        curve = np.array([5.4, 6.9, 8.0, np.inf, np.nan, np.nan]) if math.isnan(final) else curve + 1
    curve[-1] = final
    spans = np.abs(rng.normal(1, 0.1, 9)) * [0.04, 1.9, 3.4, 0.5, 0.4, 0.05, 0.03, 0.0, 0.1]
    speed = 300 * 16 * 64 / spans[:4].sum()
    return {
        "schema": 1, "study": "lr_sweep", "stage": "train", "trial": f"lr{rate:g}-seed{seed}",
        "outcome": "diverged" if kind == "diverged" else "ok", "message": None, "started": "2026-01-01T00:00:00Z",
        "seconds": float(spans.sum() + 1.2), "spec": {}, "machine": {"cpu_model": options.get("cpu", "Xeon")},
        "rate": rate, "seed": seed, "class": kind, "final_validation_loss": text(final),
        "best_validation_loss": text(float(np.nanmin(curve))), "initial_validation_loss": INITIAL,
        "final_train_loss": text(final - 0.05), "steps": 300, "tokens": 307_200, "tokens_per_second": float(speed),
        "parameters": 164_000, "unigram_entropy_nats": ENTROPY, "peak_rss_bytes": 412_000_000,
        "spans": {f"{name}_seconds": float(value) for name, value in zip(SPANS, spans, strict=True)},
        "metrics": [{"step": int(step), "val_loss": float(loss)} for step, loss in zip(steps, curve, strict=True)],
    }  # fmt: skip


def unfinished(rate: float, seed: int) -> dict[str, Any]:
    """A record of a trial that found no loss at all."""
    whole = trial(rate, seed)
    head = ("schema", "study", "stage", "trial", "started", "seconds", "spec", "machine", "rate", "seed")
    return {name: whole[name] for name in head} | {"outcome": "out_of_memory", "message": "tried to get 9 GiB"}


def sweep(seeds: Sequence[int] = (0, 1), kinds: dict[float, str] | None = None, **options: Any) -> list[dict[str, Any]]:
    """The default grid: all converged but one plateaued and one diverged rate, or what `kinds` says of a rate."""
    kinds = {1e-3: "spiked", 3.0: "plateaued", 10.0: "diverged"} if kinds is None else kinds
    return [trial(rate, seed, kinds.get(rate, "converged"), **options) for rate in RATES for seed in seeds]


def write(records: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Each record with its metrics.csv where the trial's target is."""
    paths = []
    for record in records:
        path = folder / record["trial"] / "record.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = record.get("metrics", [])
        path.write_text(json.dumps({name: value for name, value in record.items() if name != "metrics"}))
        if rows:
            with path.with_name("metrics.csv").open("w", newline="") as stream:
                writer = csv.DictWriter(stream, COLUMNS)
                writer.writeheader()
                for row in rows:
                    writer.writerow({"step": row["step"] - 10, "train_loss": 4.0})
                    writer.writerow(row)
        paths.append(path)
    return paths


def text(value: float) -> float | str:
    """The number as a record holds it."""
    return value if math.isfinite(value) else str(value)
