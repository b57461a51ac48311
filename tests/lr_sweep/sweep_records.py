"""Plausible trials of a sweep, drawn at random, for the tests of its analysis, tables and figures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.core.files import write_json
from plumbline.core.measure.spans import SPANS
from plumbline.lr_sweep.record import Curve, TrialRecord

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
INITIAL, ENTROPY = 6.26, 5.05


def head(rate: float, seed: int, **changes: Any) -> dict[str, Any]:
    """What every record has, as JSON values."""
    return {
        "schema": 1, "study": "lr_sweep", "stage": "train", "trial": f"lr{rate:g}-seed{seed}", "outcome": "ok",
        "message": None, "started": "2026-01-01T00:00:00Z", "seconds": 9.0, "spec": {},
        "machine": {"cpu_model": "Xeon"}, "device": "cpu", "rate": rate, "seed": seed,
    } | changes  # fmt: skip


def trial(rate: float, seed: int, kind: str = "converged", cpu: str = "Xeon", **options: Any) -> TrialRecord:
    """The record of a trial of class `kind`; `loss` sets its final validation loss."""
    rng = np.random.default_rng([seed, int(1e6 * rate)])
    usual = {"plateaued": ENTROPY + 0.04, "diverged": math.nan}
    bowl = 3.55 + 0.16 * math.log10(rate / 0.04) ** 2 + rng.normal(0, 0.012)
    final = float(options.get("loss", usual.get(kind, bowl)))
    steps = np.arange(0, 301, 50)
    curve = (final if math.isfinite(final) else INITIAL + 1) + (INITIAL - min(final, 5.0)) * np.exp(-steps / 80)
    if kind == "diverged":
        curve = np.array([0, 5.4, 6.9, 8.0, np.inf, np.nan, np.nan]) if math.isnan(final) else curve + 1
    curve[0], curve[-1] = INITIAL, final
    spans = np.abs(rng.normal(1, 0.1, 9)) * [0.04, 1.9, 3.4, 0.5, 0.4, 0.05, 0.03, 0.0, 0.1]
    outcome = {"outcome": "diverged", "message": "not finite"} if kind == "diverged" else {}
    found = {
        "class": kind, "class_reason": "drawn", "spikes": 0, "largest_z": math.nan, "final_validation_loss": final,
        "best_validation_loss": float(np.nanmin(curve)), "initial_validation_loss": INITIAL,
        "final_train_loss": final - 0.05, "unigram_entropy_nats": ENTROPY, "steps": 300, "tokens": 307_200,
        "validation_windows": 64, "tokens_per_second": float(300 * 16 * 64 / spans[:4].sum()), "parameters": 164_000,
        "flops_per_token": 900_000, "flops_formula": "6 N", "wall_seconds": float(spans.sum()),
        "peak_rss_bytes": 412_000_000, "dtype": "float32", "threads": 1, "restarts": 0,
        "spans": {f"{name}_seconds": float(value) for name, value in zip(SPANS, spans, strict=True)},
        "precision": {"fused": {"asked": "on", "chosen": True, "why": "set to on"}},
        "train_losses": [INITIAL], "grad_norms": [0.5],
        "curve": Curve(step=steps.tolist(), validation_loss=curve.tolist()),
    }  # fmt: skip
    return TrialRecord.model_validate(head(rate, seed, machine={"cpu_model": cpu}, **outcome) | found)


def changed(record: TrialRecord, **changes: Any) -> TrialRecord:
    """`record` with other findings."""
    return record.model_copy(update=changes)


def unfinished(rate: float, seed: int) -> TrialRecord:
    """The record of a trial that ran out of memory."""
    return TrialRecord.model_validate(head(rate, seed, outcome="out_of_memory", message="tried to get 9 GiB"))


def sweep(seeds: Sequence[int] = (0, 1), kinds: dict[float, str] | None = None, **options: Any) -> list[TrialRecord]:
    """The default grid: all converged except one plateaued and one diverged rate, or as `kinds` says by rate."""
    kinds = {1e-3: "spiked", 3.0: "plateaued", 10.0: "diverged"} if kinds is None else kinds
    return [trial(rate, seed, kinds.get(rate, "converged"), **options) for rate in RATES for seed in seeds]


def write(records: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """Writes each record where its trial's target is."""
    paths = [folder / record.trial / "record.json" for record in records]
    for record, path in zip(records, paths, strict=True):
        write_json(path, record.to_json())
    return paths
