"""Plausible records of a whole grid, drawn at random, for the tests of tables and figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.ablation.analysis.contrasts import contrasts_frame
from plumbline.ablation.analysis.frames import learning_curve_frame, runs_frame, summary_frame
from plumbline.ablation.analysis.records import TrialRecord
from plumbline.ablation.classifier.packed import pack
from plumbline.ablation.classifier.result import confusion_matrix
from plumbline.ablation.plots.panels import FigureData

CLASSES = ["airplane", "bird", "cat", "car", "dog", "fish", "fruit", "ship", "snake", "vegetable"]
LEVELS = {
    "simple_stats": (0.31, 0.36, 5), "rank_based": (0.34, 0.41, 11), "stats": (0.32, 0.40, 7),
    "spectral": (0.28, 0.35, 32), "matrix_norms": (0.29, 0.37, 7), "distribution": (0.35, 0.42, 12),
    "frequency": (0.37, 0.45, 14), "info_theoretic": (0.11, 0.14, 2), "ensemble": (0.42, 0.52, 67),
    "flat": (0.16, 0.985, 512), "energies": (None, 0.84, 130), "probes": (None, 0.975, 128),
    "sketch": (None, 0.97, 256), "curvature": (None, 0.62, 9),
}  # fmt: skip
SEEN = {"all_layers": 1.0, "visual_only": 0.72, "text_only": 0.6}
ROWS = 1000
SIDES = {"train": 0.12, "validation": 0.01, "test": 0.0}


def adapters(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes and groups of the adapters: a group is a class in one of ten folds."""
    rows = np.arange(ROWS)
    return rows % classes, rows % classes * 10 + rows // classes % 10


def run_record(
    rng: np.random.Generator, level: float, seed: int, shift: float, classes: int, classifier: str
) -> dict[str, Any]:
    """One good run whose test accuracy is near `level`; its numbers agree with one another.

    Five seeds in a row test each adapter once.
    """
    hit = np.clip(level + shift + rng.normal(0, 0.01), 0.02, 1.0)
    labels, groups = adapters(classes)
    predicted = np.full(ROWS, -1)
    for true in range(classes):
        rows = np.flatnonzero((labels == true) & (groups % 10 // 2 == seed % 5))
        odds = np.full(classes, (1 - hit) / (classes - 1))
        odds[true] = hit
        predicted[rows] = rng.permutation(np.repeat(np.arange(classes), rng.multinomial(len(rows), odds)))
    tested = predicted >= 0
    confusion = confusion_matrix(labels[tested], predicted[tested], classes)
    accuracy = float(np.trace(confusion) / confusion.sum())
    epochs = int(rng.integers(30, 90))
    rise = 1 - np.exp(-np.arange(1, epochs + 1) / 9)
    validation = np.clip(1 / classes + (accuracy - 1 / classes) * rise + rng.normal(0, 0.012, epochs), 0, 1)
    sides = {}
    for side, more in SIDES.items():
        value = float(np.clip(accuracy + 3 * more * (1 - accuracy) + rng.normal(0, 0.01), 0, 1))
        value = value if more else accuracy
        sides[side] = {"accuracy": value, "macro_f1": value - 0.004, "macro_precision": value - 0.001}
        sides[side]["macro_recall"] = value
    return {
        "classifier": classifier, "seed": seed, "outcome": "ok", **sides,
        "best_epoch": int(validation.argmax()), "epochs": epochs,
        "seconds": 0.2, "feature_width": 7, "confusion": confusion.tolist(),
        "train_rows": int(0.7 * ROWS), "predicted": pack(predicted),
        "curves": {
            "train_loss": (2.3 - 2 * rise).tolist(), "train_accuracy": rise.tolist(),
            "validation_accuracy": validation.tolist(), "learning_rate": [1e-3] * epochs,
        },
    }  # fmt: skip


def trial_record(view: str, layers: str, representation: str, level: float, **options: Any) -> dict[str, Any]:
    """A record of `runs` runs of each of `classifiers`, all good, or of another `outcome` and then without runs."""
    classifiers = options.get("classifiers", ("mlp",))
    width = options.get("width", 7)
    outcome, classes = options.get("outcome", "ok"), options.get("classes", CLASSES)
    rng = np.random.default_rng([len(view), len(layers), *representation.encode()])
    shifts = np.random.default_rng(0).normal(0, 0.012, size=50)
    labels, groups = map(pack, adapters(len(classes)))
    seeds = range(options.get("runs", 10) if outcome == "ok" else 0)
    modules = 32 if layers == "all_layers" else 16
    return {
        "schema": 1, "study": "ablation", "stage": "train", "trial": f"{view}/{layers}/{representation}",
        "outcome": outcome, "message": None if outcome == "ok" else "tried to allocate 12 GiB",
        "spec": {"classifier": list(classifiers)},
        "machine": {"cpu_model": options.get("cpu_model", "Xeon"), "cores": 2}, "device": "cpu",
        "started": "2026-01-01T00:00:00Z", "seconds": float(1.5 + width**0.5 / 4 + rng.uniform(0, 0.3)),
        "view": view, "layers": layers, "representation": representation, "classes": classes,
        "rows": ROWS, "labels": labels, "groups": groups,
        "feature_width": width * modules, "feature_width_used": width * modules, "layer_count": modules,
        "adapters": {"kind": "zoo", "shards": 2, "skipped": 0},
        "feature_seconds": float(0.2 + width / 100 + rng.uniform(0, 0.5)),
        "runs": [
            run_record(rng, min(level + 0.02 * number, 1), seed, shifts[seed], len(classes), classifier)
            for number, classifier in enumerate(classifiers)
            for seed in seeds
        ],
    }  # fmt: skip


def grid(**options: Any) -> list[dict[str, Any]]:
    """Both views, three layer sets, every representation: 72 trials."""
    records = []
    for name, (factor, product, width) in LEVELS.items():
        for layers, seen in SEEN.items():
            for view, level in (("factor", factor), ("product", product)):
                if level is not None:
                    reach = 0.985 if level > 0.95 else 0.1 + (level - 0.1) * seen
                    records.append(trial_record(view, layers, name, reach, width=width, **options))
    return records


def tokens(level: float = 0.7, **options: Any) -> list[dict[str, Any]]:
    """The trials of canonical tokens, which have a classifier of their own."""
    options = {**options, "classifiers": ("transformer",), "width": 260}
    return [
        trial_record("product", layers, "tokens", 0.1 + (level - 0.1) * seen, **options)
        for layers, seen in SEEN.items()
    ]


def curve(sizes: tuple[int, ...] = (25, 50, 100, 200)) -> dict[str, Any]:
    """What stage `learning_curve` writes: ten runs of three representations, more accurate with every size."""
    rng, rows, curves = np.random.default_rng(0), [], []
    for view, representation, level in (
        ("factor", "ensemble", 0.3),
        ("product", "flat", 0.9),
        ("product", "probes", 0.8),
    ):
        row = {"view": view, "layers": "all_layers", "representation": representation}
        curves.append({**row, "skipped": None})
        for number, size in enumerate(sizes, start=1):
            accuracy = 0.1 + (level - 0.1) * number / len(sizes) + rng.normal(0, 0.01, 10)
            rows += [{**row, "adapters": size, "run": run, "test_accuracy": accuracy[run]} for run in range(10)]
    return {"test_over_train": 2 / 7, "curves": curves, "rows": rows}


def write_curve(folder: Path, found: dict[str, Any] | None = None) -> Path:
    """What the stage found, `curve()` if not given, as a file in `folder`."""
    path = folder / "learning_curve.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(curve() if found is None else found))
    return path


def write(records: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Each record as a file where the trial's target is."""
    paths = []
    for record in records:
        path = folder / f"{record['trial']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
        paths.append(path)
    return paths


def data_of(records: list[dict[str, Any]], found: dict[str, Any] | None = None) -> FigureData:
    """The frames of these records, and of the learning curves `found`, `curve()` if not given."""
    typed = [TrialRecord.model_validate(record) for record in records]
    runs = runs_frame(typed)
    summary = summary_frame(typed, runs)
    return FigureData(
        summary=summary,
        runs=runs,
        contrasts=contrasts_frame(summary, runs),
        learning_curve=learning_curve_frame(curve() if found is None else found, summary, runs),
        records=typed,
    )
