"""The figures of the metric against parameters: by each one, by two or more together, by point, by cost."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plumbline.core.present.formatting import number, short
from plumbline.core.present.panels import log_axis, notes_on_top, panels, single_panel
from plumbline.core.present.plotting import GREY, PALETTE, WIDTH, message_figure
from plumbline.sweep.plots.data import Data

BEST, OTHER = PALETTE[0], PALETTE[1]
MOST = 30
"""Points that the ranking shows."""
WIDE = 10.0
"""Values whose largest is at least so many times the smallest stand on a log axis."""


def parameters(data: Data) -> Figure:
    """The metric by each parameter: a dot per trial, and the mean over points with its interval over seeds."""
    if not data.points or not data.parameters:
        return message_figure("No parameter has several values with complete points.")
    figure, axes = panels(len(data.parameters))
    for panel, name in zip(axes, data.parameters, strict=True):
        places = _places(panel, data.values(name))
        scores = data.ranking.scores
        for point, of in data.points.items():
            row = scores.loc[point].to_numpy(dtype=float)
            panel.plot(np.full(len(row), places[repr(of[name])]), row, "o", color=GREY, alpha=0.35, ms=3, mec="none")
        rows = data.effects[data.effects["parameter"] == name]
        rows = rows.assign(place=[places[repr(value)] for value in rows["value"]]).sort_values("place")
        mean = rows["mean"].to_numpy(dtype=float)
        ends = np.abs(rows[["mean_low", "mean_high"]].to_numpy(dtype=float).T - mean)
        panel.errorbar(rows["place"], mean, yerr=np.nan_to_num(ends), color=BEST, marker="o", capsize=2)
        panel.set(xlabel=name, ylabel=data.ranking.metric)
    notes_on_top(figure, data.unranked)
    return figure


def interaction(data: Data) -> Figure:
    """Two parameters as a heat map of means; more as parallel coordinates, a line per point."""
    if not data.points or len(data.parameters) < 2:
        return message_figure("An interaction needs two parameters with several values.")
    return _heat_map(data) if len(data.parameters) == 2 else _parallel(data)


def ranking(data: Data) -> Figure:
    """The points by their mean, the best on top: seeds as dots, Student's interval as a bar."""
    if not data.points:
        return message_figure("No point has all of its trials.")
    means = {point: mean.mean for point, mean in data.ranking.means.items()}
    best_first = sorted(means, key=lambda point: means[point], reverse=data.ranking.goal == "max")
    shown = best_first[:MOST][::-1]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.19 * len(shown)))
    for place, point in enumerate(shown):
        mean = data.ranking.means[point]
        color = BEST if point == best_first[0] else OTHER if point == data.baseline else GREY
        row = data.ranking.scores.loc[point].to_numpy(dtype=float)
        axes.plot(row, np.full(len(row), place - 0.25), "o", color=color, alpha=0.5, ms=2.5, mec="none")
        ends = np.nan_to_num([[mean.mean - mean.low], [mean.high - mean.mean]])
        axes.errorbar([mean.mean], [place], xerr=ends, color=color, marker="D", ms=4, capsize=2)
    axes.set_yticks(range(len(shown)), [_label(point, data) for point in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel(f"{data.ranking.metric} (dots: seeds; bars: 95% interval of the mean)")
    axes.grid(axis="x")
    more = f"The best {MOST} of {len(best_first)} points." if len(best_first) > MOST else ""
    notes_on_top(figure, data.unranked, more)
    return figure


def cost(data: Data) -> Figure:
    """The metric against the seconds of a trial, each the mean over seeds, and the front of what nothing beats."""
    if not data.points:
        return message_figure("No point has all of its trials.")
    seconds = {
        point: float(np.mean([one.seconds for one in data.records if one.point == point])) for point in data.points
    }
    figure, axes = single_panel()
    sign = 1 if data.ranking.goal == "max" else -1
    front, highest = [], -np.inf
    for point in sorted(data.points, key=lambda point: seconds[point]):
        mean = data.ranking.means[point].mean
        if sign * mean > highest:
            front.append(point)
            highest = sign * mean
        color = OTHER if point == data.baseline else GREY
        axes.plot(seconds[point], mean, "o", color=color, ms=4)
    places = [(seconds[point], data.ranking.means[point].mean) for point in front]
    axes.plot(*zip(*places, strict=True), color=BEST, marker="D", drawstyle="steps-post", lw=1)
    for point, place in zip(front, places, strict=True):
        axes.annotate(
            _plain(data.ranking.labels[point]),
            place,
            xytext=(4, -3),
            textcoords="offset points",
            va="top",
            fontsize=6.5,
        )
    axes.margins(x=0.25)
    axes.set(xlabel="Seconds per trial (mean over seeds)", ylabel=f"Mean {data.ranking.metric}")
    notes_on_top(figure, data.unranked)
    return figure


def curves(data: Data) -> Figure:
    """The metric over steps: the mean over seeds of each point, with the range over seeds of the best one."""
    names = list(dict.fromkeys(data.curves["name"]))
    if not names:
        return message_figure("The trials left no curves.")
    name = data.ranking.metric if data.ranking.metric in names else names[0]
    figure, axes = single_panel()
    own = data.curves[data.curves["name"] == name]
    best = data.ranking.best
    for point, rows in own.groupby("point", sort=False):
        steps = rows.groupby("step")["value"]
        color, order = GREY, 1
        if point in (best, data.baseline):
            color, order = (BEST, 3) if point == best else (OTHER, 2)
        mean, label = steps.mean(), _label(str(point), data) if order > 1 else "_"
        width, alpha = (1.4, 1.0) if order > 1 else (0.7, 0.5)
        axes.plot(mean.index, mean, color=color, lw=width, alpha=alpha, label=label, zorder=1 + order)
        if point == best:
            axes.fill_between(steps.min().index, steps.min(), steps.max(), color=BEST, alpha=0.15, lw=0)
    axes.set(xlabel="Step", ylabel=_plain(name))
    if best is not None or data.baseline is not None:
        axes.legend()
    return figure


def _heat_map(data: Data) -> Figure:
    across, down = data.parameters[1], data.parameters[0]
    columns, rows = data.values(across), data.values(down)
    table = np.full((len(rows), len(columns)), np.nan)
    for point, of in data.points.items():
        table[_index(rows, of[down]), _index(columns, of[across])] = data.ranking.means[point].mean
    figure, axes = plt.subplots(figsize=(min(WIDTH, 1.8 + 0.9 * len(columns)), 1.0 + 0.45 * len(rows)))
    image = axes.imshow(table, aspect="auto", cmap="viridis" if data.ranking.goal == "max" else "viridis_r")
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            light = (value < middle) == (data.ranking.goal == "max")
            axes.text(column, row, number(value, 4), ha="center", va="center", color="w" if light else "k", fontsize=7)
    axes.set_xticks(range(len(columns)), [_shown(value) for value in columns])
    axes.set_yticks(range(len(rows)), [_shown(value) for value in rows])
    axes.set(xlabel=_plain(across), ylabel=_plain(down))
    figure.colorbar(image, ax=axes, label=f"Mean {data.ranking.metric}")
    notes_on_top(figure, data.unranked)
    return figure


def _parallel(data: Data) -> Figure:
    figure, axes = single_panel()
    means = np.array([data.ranking.means[point].mean for point in data.points])
    low, high = means.min(), means.max()
    heights = []
    for place, name in enumerate(data.parameters):
        values = data.values(name)
        at = {repr(value): number / max(1, len(values) - 1) for number, value in enumerate(values)}
        heights.append([at[repr(point[name])] for point in data.points.values()])
        for value in values:
            axes.annotate(
                _shown(value), (place, at[repr(value)]), xytext=(3, 2), textcoords="offset points", fontsize=6.5
            )
        axes.axvline(place, color=GREY, lw=0.6)
    heights.append(list((means - low) / (high - low if high > low else 1)))
    colors = plt.get_cmap("viridis" if data.ranking.goal == "max" else "viridis_r")
    for line, shade in zip(np.array(heights).T, heights[-1], strict=True):
        axes.plot(line, color=colors(shade), alpha=0.7, lw=1)
    axes.axvline(len(data.parameters), color=GREY, lw=0.6)
    for share, value in ((0.0, low), (1.0, high)):
        axes.annotate(
            short(value), (len(data.parameters), share), xytext=(3, 2), textcoords="offset points", fontsize=6.5
        )
    axes.set_xticks(range(len(data.parameters) + 1), [*map(_plain, data.parameters), _plain(data.ranking.metric)])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.margins(x=0.08)
    notes_on_top(figure, data.unranked)
    return figure


def _places(axes: Axes, values: Sequence[Any]) -> dict[str, float]:
    """Where each value stands on the x axis, which is made for them: numbers by size, others side by side."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if min(values) > 0 and max(values) >= WIDE * min(values):
            axes.set_xlim(min(values) / 1.3, max(values) * 1.3)
            log_axis(axes, "x")
        return {repr(value): float(value) for value in values}
    axes.set_xticks(range(len(values)), [_shown(value) for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
    return {repr(value): float(place) for place, value in enumerate(values)}


def _index(values: Sequence[Any], value: Any) -> int:
    return [repr(one) for one in values].index(repr(value))


def _label(point: str, data: Data) -> str:
    return _plain(data.ranking.labels[point]) + (" (baseline)" if point == data.baseline else "")


def _shown(value: Any) -> str:
    return _plain(short(value) if isinstance(value, float) else str(value))


def _plain(text: str) -> str:
    """Text as matplotlib draws it, without reading mathematics into dollar signs."""
    return text.replace("$", r"\$")
