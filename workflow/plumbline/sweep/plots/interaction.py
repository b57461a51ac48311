"""The figure of the metric by two parameters or more together."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from plumbline.core.present.formatting import number, short
from plumbline.core.present.panels import notes_on_top, single_panel
from plumbline.core.present.plotting import GREY, LABEL_POINTS, WIDTH, message_figure
from plumbline.sweep.plots.axes import CATEGORIES, is_numeric, is_wide, places, plain, shown
from plumbline.sweep.plots.data import Data


def interaction(data: Data) -> Figure:
    """Two parameters as a heat map of means, or a scatter where they have many values; more as parallel coordinates."""
    if not data.points or len(data.parameters) < 2:
        return message_figure("An interaction needs two parameters with several values.")
    if len(data.parameters) > 2:
        return _parallel(data)
    rows, columns = (len(data.values(name)) for name in data.parameters)
    is_grid = max(rows, columns) <= CATEGORIES and 2 * len(data.points) >= rows * columns
    return _heat_map(data) if is_grid else _scatter(data)


def _heat_map(data: Data) -> Figure:
    across, down = data.parameters[1], data.parameters[0]
    columns, rows = data.values(across), data.values(down)
    table = np.full((len(rows), len(columns)), np.nan)
    for point, of in data.points.items():
        table[_index(rows, of[down]), _index(columns, of[across])] = data.every.means[point].mean
    figure, axes = plt.subplots(figsize=(min(WIDTH, 1.8 + 0.9 * len(columns)), 1.0 + 0.45 * len(rows)))
    image = axes.imshow(table, aspect="auto", cmap=_colors(data))
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            light = (value < middle) == (data.ranking.goal == "max")
            axes.text(column, row, number(value, 4), ha="center", va="center", color="w" if light else "k", fontsize=7)
    axes.set_xticks(range(len(columns)), [shown(value) for value in columns])
    axes.set_yticks(range(len(rows)), [shown(value) for value in rows])
    axes.set(xlabel=plain(across), ylabel=plain(down))
    figure.colorbar(image, ax=axes, label=f"Mean {plain(data.ranking.metric)}")
    notes_on_top(figure, data.unranked, data.smallest_budget)
    return figure


def _scatter(data: Data) -> Figure:
    """A dot per point, colored by its mean; the best is ringed."""
    down, across = data.parameters
    figure, axes = single_panel(height=3.6)
    columns, rows = places(axes, data.values(across), "x"), places(axes, data.values(down), "y")
    means = {point: data.every.means[point].mean for point in data.points}
    best_last = sorted(means, key=lambda point: means[point], reverse=data.every.goal == "min")
    x = [columns[repr(data.points[point][across])] for point in best_last]
    y = [rows[repr(data.points[point][down])] for point in best_last]
    dots = axes.scatter(x, y, c=[means[point] for point in best_last], cmap=_colors(data), s=22, linewidths=0)
    axes.scatter(x[-1:], y[-1:], s=70, facecolors="none", edgecolors="k", linewidths=1.2)
    axes.set(xlabel=plain(across), ylabel=plain(down))
    figure.colorbar(dots, ax=axes, label=f"Mean {plain(data.ranking.metric)} (ring: the best)")
    notes_on_top(figure, data.unranked, data.smallest_budget)
    return figure


def _parallel(data: Data) -> Figure:
    """A line per point, from its values to its mean; the best are drawn last."""
    figure, axes = single_panel()
    means = np.array([data.every.means[point].mean for point in data.points])
    low, high = means.min(), means.max()
    heights = []
    for place, name in enumerate(data.parameters):
        at, labels = _heights(data.values(name))
        heights.append([at[repr(point[name])] for point in data.points.values()])
        for height, text in labels:
            _annotate(axes, text, (place, height))
        axes.axvline(place, color=GREY, lw=0.6)
    heights.append(list((means - low) / (high - low if high > low else 1)))
    order = np.argsort(means if data.ranking.goal == "max" else -means, kind="stable")
    for line, shade in zip(np.array(heights).T[order], np.array(heights[-1])[order], strict=True):
        axes.plot(line, color=_colors(data)(shade), alpha=0.7, lw=1)
    axes.axvline(len(data.parameters), color=GREY, lw=0.6)
    for share, value in ((0.0, low), (1.0, high)):
        _annotate(axes, short(value), (len(data.parameters), share))
    axes.set_xticks(range(len(data.parameters) + 1), [*map(plain, data.parameters), plain(data.ranking.metric)])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.margins(x=0.08)
    notes_on_top(figure, data.unranked, data.smallest_budget)
    return figure


def _annotate(axes: Axes, text: str, place: tuple[float, float]) -> None:
    """Text on a ground of its own, since lines cross it."""
    ground = {"facecolor": "w", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
    axes.annotate(text, place, xytext=(3, 3), textcoords="offset points", fontsize=LABEL_POINTS, bbox=ground)


def _heights(values: Sequence[Any]) -> tuple[dict[str, float], list[tuple[float, str]]]:
    """Where each value stands on its axis, from 0 to 1, and what is written there.

    A few values stand evenly, each with its label; many numbers by size, by their logarithm where they are wide, and
    only the ends are written.
    """
    if len(values) <= CATEGORIES or not is_numeric(values):
        at = {repr(value): place / max(1, len(values) - 1) for place, value in enumerate(values)}
        return at, [(at[repr(value)], shown(value)) for value in values[:: -(-len(values) // CATEGORIES)]]
    sizes = np.log(values) if is_wide(values) else np.array(values, dtype=float)
    scaled = (sizes - sizes[0]) / (sizes[-1] - sizes[0])
    at = dict(zip(map(repr, values), scaled.tolist(), strict=True))
    return at, [(0.0, shown(values[0])), (1.0, shown(values[-1]))]


def _colors(data: Data) -> Colormap:
    """From bad to good in the same direction, whatever the goal."""
    return plt.get_cmap("viridis" if data.ranking.goal == "max" else "viridis_r")


def _index(values: Sequence[Any], value: Any) -> int:
    return [repr(one) for one in values].index(repr(value))
