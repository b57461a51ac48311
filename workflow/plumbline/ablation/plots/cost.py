"""The cost of accuracy: seconds against test accuracy, with the Pareto front."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plumbline.ablation.analysis.labels import classifier_label, layers_label, representation_label, view_label
from plumbline.ablation.plots.panels import FigureData, chance_handle, view_handles, view_style
from plumbline.core.present.panels import DASHES, legend_below, log_axis, notes_on_top
from plumbline.core.present.plotting import GREY, LABEL_POINTS, WIDTH, label_front, message_figure
from plumbline.core.run.records import machine_note


def pareto(data: FigureData) -> Figure:
    """Seconds of features and training together against test accuracy, panels by layer set and classifier.

    A line joins the trials on the Pareto front, and only these are named. Trials without an accuracy or a time are
    listed below the axes.
    """
    summary = with_total_seconds(data.summary)
    placed = summary["test_accuracy"].notna() & summary["total_seconds"].notna()
    layer_sets = [name for name in data.layer_sets if (placed & (summary["layers"] == name)).any()]
    if not layer_sets:
        return message_figure("No trial has both an accuracy and a time.")
    shape = (len(layer_sets), len(data.classifiers))
    figure, axes = plt.subplots(
        *shape, figsize=(WIDTH, 0.9 + 2.3 * len(layer_sets)), sharex="col", sharey=True, squeeze=False
    )
    shown = {}
    for line, layers in zip(axes, layer_sets, strict=True):
        for panel, classifier in zip(line, data.classifiers, strict=True):
            panel.set_title(f"{layers_label(layers)}, {classifier_label(classifier)}")
            own = summary["classifier"].isin([classifier, "transformer"])
            shown[panel] = summary[placed & own & (summary["layers"] == layers)]
    for panel, frame in shown.items():
        _draw_points(panel, frame, data.chance)
        _list_front(panel, frame)
    for panel in axes[:, 0]:
        panel.set_ylabel("Test accuracy (%)")
    for panel in axes[-1]:
        panel.set_xlabel("Features and training (seconds)")
    left_out = "\n".join(_left_out(summary[~placed])) or None
    legend_below(figure, [*view_handles(data.views), chance_handle(data.chance)], title=left_out)
    notes_on_top(figure, machine_note(summary["machine"], "times"))
    for column in range(len(data.classifiers)):
        seconds = pd.concat([shown[panel] for panel in axes[:, column]])["total_seconds"]
        if len(seconds):
            axes[0, column].set_xlim(seconds.min() / 2, seconds.max() * 1.3)
            for panel in axes[:, column]:
                log_axis(panel, "x")
    figure.draw_without_rendering()  # numbers are placed in a settled layout
    figure.set_layout_engine("none")
    for panel, frame in shown.items():
        _number_front(panel, frame)
    return figure


def with_total_seconds(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with `total_seconds`: the feature pass and the training; NaN when either is unknown."""
    return summary.assign(total_seconds=summary["feature_seconds"] + summary["training_seconds"])


def pareto_front(seconds: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Indices of the points on the front, by seconds: every point that is as fast or faster is less accurate.

    Of equal points the first is kept.
    """
    order = np.lexsort((-accuracy, seconds))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], accuracy[order]]))[:-1]
    return order[accuracy[order] > best]


def _draw_points(axes: Axes, frame: pd.DataFrame, chance: float) -> None:
    axes.axhline(100 * chance, color=GREY, ls=DASHES, lw=0.9, zorder=1)
    seconds, accuracy = _coordinates(frame)
    front = pareto_front(seconds, accuracy)
    axes.step(seconds[front], accuracy[front], where="post", color="black", lw=0.8, zorder=2)
    for view, group in frame.groupby("view", sort=False):
        colour, marker = view_style(str(view))
        x, y = _coordinates(group)
        axes.plot(x, y, marker, color=colour, ms=5, mew=0.4, mec="white", zorder=3)
    axes.set_ylim(0, 104)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="both")
    axes.set_axisbelow(True)


def _list_front(axes: Axes, frame: pd.DataFrame) -> None:
    """The names of the trials on the front, numbered from the fastest, right of the panel."""
    lines = []
    for number, index in enumerate(pareto_front(*_coordinates(frame)), start=1):
        row = frame.iloc[index]
        view = view_label(row["view"]).split()[0].lower()
        lines.append(f"{number} {representation_label(row['representation'])} ({view})")
    axes.text(1.02, 1.0, "\n".join(lines), transform=axes.transAxes, fontsize=LABEL_POINTS, va="top")


def _number_front(axes: Axes, frame: pd.DataFrame) -> None:
    """A number beside each point on the front: where nothing is, or below where the front leaves no room above.

    The figure's layout must be final: heights are computed from it.
    """
    seconds, accuracy = _coordinates(frame)
    front = pareto_front(seconds, accuracy)
    toward = (-1, 1) if np.median(accuracy[front]) < 50 else (1, -1)
    places = list(zip(seconds[front], accuracy[front], strict=True))
    label_front(axes, places, [str(number) for number in range(1, len(front) + 1)], toward)


def _coordinates(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return frame["total_seconds"].to_numpy(dtype=np.float64), 100 * frame["test_accuracy"].to_numpy(dtype=np.float64)


def _left_out(frame: pd.DataFrame) -> list[str]:
    """Lines that name the trials that are not on the axes."""
    if frame.empty:
        return []
    names = ", ".join(f"{row['trial']} ({classifier_label(row['classifier'])})" for _, row in frame.iterrows())
    return textwrap.wrap(f"Not shown, because they have no accuracy or no time: {names}", 110)
