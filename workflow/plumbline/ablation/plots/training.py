"""Figures of single trainings: learning curves and confusion matrices."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.ablation.analysis.contrasts import best_trial
from plumbline.ablation.analysis.labels import layers_label, outcome_label, representation_label, view_label
from plumbline.ablation.analysis.records import trial_outcome
from plumbline.ablation.plots.panels import Tables, layers_style
from plumbline.core.present.plotting import FAULT, GREY, WIDTH
from plumbline.core.statistics.bootstrap import bootstrap_interval

LINES = {"factor": (0, (3, 1.5)), "product": "-"}
MOST_ANNOTATED = 12
COLUMNS = 4


def curves(tables: Tables) -> Figure:
    """Validation accuracy by epoch: a panel per representation, a colour per layer set, dashed for factors.

    Lines are means over runs with bootstrap 95% bands. A run that stopped early counts on with the accuracy
    of the weights it kept, so that a line does not jump when a run leaves.
    """
    names = list(dict.fromkeys(record["representation"] for record in tables.records))
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 0.8 + 1.45 * rows), sharex=True, sharey=True, squeeze=False
    )
    for panel in axes.flat[len(names) :]:
        panel.axis("off")
    for panel, name in zip(axes.flat, names, strict=False):
        panel.set_title(representation_label(name))
        panel.axhline(100 * tables.chance, color=GREY, ls=(0, (4, 2)), lw=0.8)
        failed: list[dict[str, Any]] = []
        for record in (entry for entry in tables.records if entry["representation"] == name):
            if not _curve(panel, record):
                failed.append(record)
        _name_failed(panel, failed)
        panel.set_ylim(0, 102)
    last = [max(r for r in range(rows) if r * columns + c < len(names)) for c in range(columns)]
    for column, row in enumerate(last):
        axes[row, column].tick_params(labelbottom=True)
        axes[row, column].set_xlabel("Epoch")
    figure.supylabel("Validation accuracy (%)", fontsize=8)
    figure.legend(handles=_curve_handles(tables), loc="outside lower center", ncols=6)
    return figure


def confusion(tables: Tables) -> Figure:
    """Confusion matrices of the best representation of each view and layer set, over all of its runs.

    Best by validation accuracy. Each row is a true class and sums to 100%.
    """
    views, layer_sets = tables.views, tables.layer_sets
    classes = [str(name) for name in tables.records[0]["classes"]]
    side = min((WIDTH - 1.8) / len(layer_sets), 2.6)
    figure, axes = plt.subplots(
        len(views),
        len(layer_sets),
        figsize=(side * len(layer_sets) + 1.8, (side + 0.4) * len(views) + 0.8),
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    records = {record["trial"]: record for record in tables.records}
    for row, view in enumerate(views):
        for column, layers in enumerate(layer_sets):
            panel = axes[row, column]
            chosen = tables.summary[(tables.summary["view"] == view) & (tables.summary["layers"] == layers)]
            best = best_trial(chosen)
            if best is None:
                panel.set_title(f"{view_label(view)}, {layers_label(layers).lower()}\nno trial", fontsize=8)
                panel.axis("off")
                continue
            where = f"{view_label(view)}, {layers_label(layers).lower()}"
            panel.set_title(f"{where}\n{representation_label(best['representation'])}", fontsize=8)
            _matrix(panel, records[best["trial"]], classes)
            if row == len(views) - 1:
                panel.set_xlabel("Predicted class")
            if column == 0:
                panel.set_ylabel("True class")
    scale = ScalarMappable(Normalize(0, 100), "Blues")
    figure.colorbar(scale, ax=axes, label="Share of the true class (%)", shrink=0.6, aspect=30)
    return figure


def confusion_shares(record: dict[str, Any]) -> np.ndarray:
    """Percent of each true class (rows) given to each class, over all good runs; NaN rows for absent classes."""
    counts = np.sum([run["confusion"] for run in record["runs"] if run["outcome"] == "ok"], axis=0, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)


def held_curves(record: dict[str, Any]) -> np.ndarray:
    """Validation accuracy of the good runs: (epochs of the longest, runs), each held at its best after its end."""
    series = [run["curves"]["validation_accuracy"] for run in record["runs"] if run["outcome"] == "ok"]
    longest = max((len(values) for values in series), default=0)
    held = [[*values, *[max(values)] * (longest - len(values))] for values in series]
    return np.array(held, dtype=np.float64).reshape(len(series), longest).T


def _curve(axes: Axes, record: dict[str, Any]) -> bool:
    held = 100 * held_curves(record)
    if not held.size:
        return False
    colour, _ = layers_style(record["layers"])
    epochs = np.arange(1, len(held) + 1)
    low, high = bootstrap_interval(held, resamples=2000)
    axes.plot(epochs, held.mean(axis=1), color=colour, ls=LINES.get(record["view"], "-"), lw=1.0)
    axes.fill_between(epochs, low, high, color=colour, alpha=0.18, lw=0)
    return True


def _name_failed(axes: Axes, failed: list[dict[str, Any]]) -> None:
    """What the trials without a curve found, above the curves or, where these reach the top, below them."""
    highest = max((np.max(line.get_ydata()) for line in axes.lines), default=0.0)
    top = 0.97 if highest < 80 else 0.6
    look: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 5.5, "color": FAULT, "transform": axes.transAxes}
    for line, record in enumerate(failed):
        text = f"× {view_label(record['view'])}, {layers_label(record['layers']).lower()}: "
        text += outcome_label(trial_outcome(record))
        axes.text(0.98, top - 0.1 * line, text, **look)


def _curve_handles(tables: Tables) -> list[Line2D]:
    handles = [
        Line2D([], [], color=layers_style(layers)[0], label=layers_label(layers)) for layers in tables.layer_sets
    ]
    handles += [Line2D([], [], color="black", ls=LINES.get(view, "-"), label=view_label(view)) for view in tables.views]
    label = f"Chance ({100 * tables.chance:.3g}%)"
    return [*handles, Line2D([], [], color=GREY, ls=(0, (4, 2)), lw=0.8, label=label)]


def _matrix(axes: Axes, record: dict[str, Any], classes: list[str]) -> None:
    shares = confusion_shares(record)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    size = 7 if len(classes) <= MOST_ANNOTATED else 5
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=size)
    axes.set_yticks(range(len(classes)), classes, fontsize=size)
    axes.tick_params(length=0)
    if len(classes) <= MOST_ANNOTATED:
        for (row, column), share in np.ndenumerate(shares):
            if round(share) >= 1:
                ink = "white" if share > 55 else "black"
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=4.8, color=ink)
    for spine in axes.spines.values():
        spine.set_visible(True)
