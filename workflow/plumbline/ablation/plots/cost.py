"""The cost of accuracy: seconds against test accuracy, with the Pareto front."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plumbline.ablation.analysis.labels import layers_label, representation_label, view_label
from plumbline.ablation.plots.panels import FigureData, chance_handle, view_handles, view_style
from plumbline.core.present.panels import DASHES, legend_below, log_axis, notes_on_top
from plumbline.core.present.plotting import GREY, WIDTH, label_front, message_figure
from plumbline.core.run.records import machine_note


def pareto(data: FigureData) -> Figure:
    """Seconds of features and training together against test accuracy, a panel per layer set.

    A line joins the trials on the Pareto front, and only these are named. Trials without an accuracy or a time are
    listed below the axes.
    """
    summary = with_total_seconds(data.summary)
    placed = summary["test_accuracy"].notna() & summary["total_seconds"].notna()
    layer_sets = [name for name in data.layer_sets if (placed & (summary["layers"] == name)).any()]
    if not layer_sets:
        return message_figure("No trial has both an accuracy and a time.")
    figure, axes = plt.subplots(
        len(layer_sets), 1, figsize=(WIDTH, 0.9 + 2.5 * len(layer_sets)), sharex=True, squeeze=False
    )
    for panel, layers in zip(axes[:, 0], layer_sets, strict=True):
        panel.set_title(layers_label(layers))
        _draw_points(panel, summary[placed & (summary["layers"] == layers)], data.chance)
    axes[-1, 0].set_xlabel("\n".join(["Features and training (seconds)", *_left_out(summary[~placed])]))
    legend_below(figure, [*view_handles(data.views), chance_handle(data.chance)])
    notes_on_top(figure, machine_note(summary["machine"], "times"))
    seconds = summary.loc[placed, "total_seconds"]
    decades = max(np.log10(seconds.max() / seconds.min()), 0.3)
    axes[0, 0].set_xlim(seconds.min() / 10 ** (0.42 * decades), seconds.max() * 10 ** (0.04 * decades))
    for panel in axes[:, 0]:
        log_axis(panel, "x")
    figure.draw_without_rendering()  # labels are placed in a settled layout
    figure.set_layout_engine("none")
    for panel, layers in zip(axes[:, 0], layer_sets, strict=True):
        _name_front(panel, summary[placed & (summary["layers"] == layers)])
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
    axes.set_ylim(0, 125)  # room for names above the last points
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("Test accuracy (%)")
    axes.grid(axis="both")
    axes.set_axisbelow(True)


def _name_front(axes: Axes, frame: pd.DataFrame) -> None:
    seconds, accuracy = _coordinates(frame)
    front = pareto_front(seconds, accuracy)
    names = [
        f"{representation_label(row['representation'])} ({view_label(row['view']).split()[0].lower()})"
        for _, row in frame.iloc[front].iterrows()
    ]
    label_front(axes, [(seconds[index], accuracy[index]) for index in front], names)


def _coordinates(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return frame["total_seconds"].to_numpy(dtype=np.float64), 100 * frame["test_accuracy"].to_numpy(dtype=np.float64)


def _left_out(frame: pd.DataFrame) -> list[str]:
    """Lines that name the trials that are not on the axes."""
    if frame.empty:
        return []
    names = ", ".join(f"{row['trial']}" for _, row in frame.iterrows())
    return textwrap.wrap(f"Not shown, because they have no accuracy or no time: {names}", 110)
