"""Figures of single trials: learning curves and confusion matrices."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.ablation.analysis.contrasts import best_trial
from plumbline.ablation.analysis.labels import classifier_label, layers_label, representation_label, view_label
from plumbline.ablation.analysis.records import TrialRecord, test_over_train
from plumbline.ablation.classifier.result import RunResult
from plumbline.ablation.plots.panels import FigureData, chance_handle, layers_style
from plumbline.core.present.formatting import outcome_label
from plumbline.core.present.panels import DASHES, error_bars, legend_below
from plumbline.core.present.plotting import FAULT, GREY, MARKERS, PALETTE, WIDTH, drawable, message_figure
from plumbline.core.statistics.resampled import corrected_interval

LINES = {"factor": (0, (3, 1.5)), "product": "-"}
MOST_ANNOTATED = 12
COLUMNS = 4
EPOCHS = ("mlp", "transformer")
"""Classifiers that train in epochs. A trial has at most one of them."""


def curves(data: FigureData) -> Figure:
    """Validation accuracy by epoch: a panel per representation, a colour per layer set, dashed for factors.

    Lines are means over runs with corrected resampled 95% bands. After a run stops, the accuracy of the weights it
    kept stays in the mean, so that the line does not jump.
    """
    shown = [record for record in data.records if not set(EPOCHS).isdisjoint(record.classifiers)]
    if not shown:
        return message_figure("No curves to show: no classifier of the grid trains in epochs.")
    names = list(dict.fromkeys(record.representation for record in shown))
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 0.8 + 1.45 * rows), sharex=True, sharey=True, squeeze=False
    )
    for panel in axes.flat[len(names) :]:
        panel.axis("off")
    for panel, name in zip(axes.flat, names, strict=False):
        panel.set_title(representation_label(name))
        panel.axhline(100 * data.chance, color=GREY, ls=DASHES, lw=0.8)
        records = [record for record in shown if record.representation == name]
        for record in records:
            if _curved_runs(record):
                _curve(panel, record)
        _name_failed(panel, [record for record in records if not _curved_runs(record)])
        panel.set_ylim(0, 102)
    last = [max(r for r in range(rows) if r * columns + c < len(names)) for c in range(columns)]
    for column, row in enumerate(last):
        axes[row, column].tick_params(labelbottom=True)
        axes[row, column].set_xlabel("Epoch")
    used = [name for name in EPOCHS if any(name in record.classifiers for record in shown)]
    figure.supylabel(f"Validation accuracy (%), {' and '.join(map(classifier_label, used))}", fontsize=8)
    legend_below(figure, _curve_handles(data), columns=6)
    return figure


def learning_curve(data: FigureData) -> Figure:
    """Test accuracy of the linear classifier by number of training adapters; dashed for factors.

    Bars are corrected resampled 95% intervals.
    """
    if data.learning_curve.empty:
        return message_figure("No learning curve to show: the classifier linear was not trained on any representation.")
    figure, axes = plt.subplots(figsize=(0.62 * WIDTH, 2.9))
    axes.axhline(100 * data.chance, color=GREY, ls=DASHES, lw=0.9)
    groups = list(data.learning_curve.groupby(["view", "representation"], sort=False))
    for index, ((view, representation), group) in enumerate(groups):
        axes.errorbar(
            group["adapters"] * (1 + 0.025 * (index - (len(groups) - 1) / 2)),
            100 * group["test_accuracy"],
            yerr=error_bars(group, "test_accuracy", 100),
            color=PALETTE[index % len(PALETTE)],
            marker=MARKERS[index % len(MARKERS)],
            ls=LINES[str(view)],
            lw=1.1,
            ms=4,
            mew=0,
            elinewidth=0.9,
            label=f"{representation_label(str(representation))} ({view!s})",
        )
    axes.set_ylim(0, 102)
    axes.set_xscale("log")
    sizes = sorted(set(data.learning_curve["adapters"]))
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("Training adapters")
    axes.set_ylabel("Test accuracy (%), linear")
    layers = layers_label(str(data.learning_curve["layers"].iloc[0]))
    axes.set_title(layers)
    handles = [*axes.get_legend_handles_labels()[0], chance_handle(data.chance)]
    legend_below(figure, handles, columns=2)
    return figure


def confusion(data: FigureData) -> Figure:
    """Confusion matrices of the best representation and classifier of each view and layer set, over all of its runs.

    Best by validation accuracy, which favours the classifiers that choose their epoch by it (EPOCHS) over `linear`.
    Each row is a true class and sums to 100%.
    """
    views, layer_sets = data.views, data.layer_sets
    classes = data.records[0].classes
    side = min((WIDTH - 1.8) / len(layer_sets), 2.6)
    figure, axes = plt.subplots(
        len(views),
        len(layer_sets),
        figsize=(side * len(layer_sets) + 1.8, (side + 0.4) * len(views) + 0.8),
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    records = {record.trial: record for record in data.records}
    for row, view in enumerate(views):
        for column, layers in enumerate(layer_sets):
            panel = axes[row, column]
            chosen = data.summary[(data.summary["view"] == view) & (data.summary["layers"] == layers)]
            best = best_trial(chosen)
            where = f"{view_label(view)}, {layers_label(layers).lower()}"
            if best is None:
                panel.set_title(f"{where}\nno trial", fontsize=8)
                panel.axis("off")
                continue
            name = f"{representation_label(best['representation'])}, {classifier_label(best['classifier'])}"
            panel.set_title(f"{where}\n{name}", fontsize=8)
            _matrix(panel, confusion_shares(records[best["trial"]].good_runs_of(best["classifier"])), classes)
            if row == len(views) - 1:
                panel.set_xlabel("Predicted class")
            if column == 0:
                panel.set_ylabel("True class")
    scale = ScalarMappable(Normalize(0, 100), "Blues")
    figure.colorbar(scale, ax=axes, label="Share of the true class (%)", shrink=0.6, aspect=30)
    return figure


def confusion_shares(runs: Sequence[RunResult]) -> np.ndarray:
    """Percent of each true class (rows) predicted as each class, over all runs; NaN rows for absent classes."""
    counts = np.array([run.confusion for run in runs], dtype=np.float64).sum(axis=0)
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)


def held_curves(runs: Sequence[RunResult]) -> np.ndarray:
    """Validation accuracy of runs, (epochs of the longest, runs), held at its best after a run ends."""
    series = [run.curves.validation_accuracy for run in runs]
    longest = max((len(values) for values in series), default=0)
    held = [[*values, *[max(values)] * (longest - len(values))] for values in series]
    return np.array(held, dtype=np.float64).reshape(len(series), longest).T


def _curved_runs(record: TrialRecord) -> list[RunResult]:
    return [run for run in record.good_runs if run.classifier in EPOCHS]


def _curve(axes: Axes, record: TrialRecord) -> None:
    runs = _curved_runs(record)
    held = 100 * held_curves(runs)
    colour, _ = layers_style(record.layers)
    epochs = np.arange(1, len(held) + 1)
    low, high = np.clip(corrected_interval(held, test_over_train=test_over_train(runs)), 0, 100)
    axes.plot(epochs, held.mean(axis=1), color=colour, ls=LINES.get(record.view, "-"), lw=1.0)
    axes.fill_between(epochs, low, high, color=colour, alpha=0.18, lw=0)


def _name_failed(axes: Axes, failed: list[TrialRecord]) -> None:
    """Names the trials without a curve and their outcomes: above the curves, or below where those reach the top."""
    highest = max((np.max(line.get_ydata()) for line in axes.lines), default=0.0)
    top = 0.97 if highest < 80 else 0.6
    for line, record in enumerate(failed):
        text = f"× {view_label(record.view)}, {layers_label(record.layers).lower()}: "
        text += outcome_label(record.outcome)
        height = top - 0.1 * line
        axes.text(0.98, height, text, ha="right", va="top", fontsize=5.5, color=FAULT, transform=axes.transAxes)


def _curve_handles(data: FigureData) -> list[Line2D]:
    handles = [Line2D([], [], color=layers_style(layers)[0], label=layers_label(layers)) for layers in data.layer_sets]
    handles += [Line2D([], [], color="black", ls=LINES.get(view, "-"), label=view_label(view)) for view in data.views]
    return [*handles, chance_handle(data.chance)]


def _matrix(axes: Axes, shares: np.ndarray, classes: list[str]) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    size = 7 if len(classes) <= MOST_ANNOTATED else 5
    classes = drawable(classes)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(classes)), classes, fontsize=size, parse_math=False)
    axes.tick_params(length=0)
    if len(classes) <= MOST_ANNOTATED:
        for (row, column), share in np.ndenumerate(shares):
            if round(share) >= 1:
                ink = "white" if share > 55 else "black"
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=4.8, color=ink)
    for spine in axes.spines.values():
        spine.set_visible(True)
