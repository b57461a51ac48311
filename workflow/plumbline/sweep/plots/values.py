"""The figures of the metric against parameters: by each one, by point, over steps, by cost."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from plumbline.core.present.panels import notes_on_top, panels, single_panel
from plumbline.core.present.plotting import GREY, PALETTE, WIDTH, message_figure
from plumbline.sweep.plots.axes import CATEGORIES, label, places, plain
from plumbline.sweep.plots.data import Data
from plumbline.sweep.plots.pareto import name_front, shortened

BEST, OTHER = PALETTE[0], PALETTE[1]
MOST = 30
"""Points that the ranking shows."""


def parameters(data: Data) -> Figure:
    """The metric by each parameter: a dot per trial, and the mean over points with its interval over seeds."""
    if not data.points or not data.parameters:
        return message_figure("No parameter has several values with complete points.")
    figure, axes = panels(len(data.parameters))
    for panel, name in zip(axes, data.parameters, strict=True):
        at = places(panel, data.values(name))
        scores = data.every.scores
        across = np.repeat([at[repr(of[name])] for of in data.points.values()], scores.shape[1])
        panel.plot(across, scores.to_numpy(dtype=float).ravel(), "o", color=GREY, alpha=0.35, ms=3, mec="none")
        rows = data.effects[data.effects["parameter"] == name]
        rows = rows.assign(place=[at[repr(value)] for value in rows["value"]]).sort_values("place")
        mean = rows["mean"].to_numpy(dtype=float)
        ends = np.abs(rows[["mean_low", "mean_high"]].to_numpy(dtype=float).T - mean)
        if len(data.values(name)) <= CATEGORIES:  # more are a scatter: a mean of one point each says nothing
            panel.errorbar(rows["place"], mean, yerr=np.nan_to_num(ends), color=BEST, marker="o", capsize=2)
        panel.set(xlabel=plain(name), ylabel=plain(data.ranking.metric))
    notes_on_top(figure, data.unranked, data.smallest_budget)
    return figure


def ranking(data: Data) -> Figure:
    """The points by their mean, the best on top: seeds as dots, Student's interval as a bar."""
    if data.ranking.best is None:
        return message_figure("No point has all of its trials.")
    means = {point: mean.mean for point, mean in data.ranking.means.items()}
    best_first = sorted(means, key=lambda point: means[point], reverse=data.ranking.goal == "max")
    top = best_first[:MOST][::-1]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.19 * len(top)))
    for place, point in enumerate(top):
        mean = data.ranking.means[point]
        color = BEST if point == best_first[0] else OTHER if point == data.baseline else GREY
        row = data.ranking.scores.loc[point].to_numpy(dtype=float)
        axes.plot(row, np.full(len(row), place - 0.25), "o", color=color, alpha=0.5, ms=2.5, mec="none")
        ends = np.nan_to_num([[mean.mean - mean.low], [mean.high - mean.mean]])
        axes.errorbar([mean.mean], [place], xerr=ends, color=color, marker="D", ms=4, capsize=2)
    axes.set_yticks(range(len(top)), [label(point, data) for point in top])
    axes.set_ylim(-0.7, len(top) - 0.3)
    axes.set_xlabel(f"{data.ranking.metric} (dots: seeds; bars: 95% interval of the mean)")
    axes.grid(axis="x")
    more = f"The best {MOST} of {len(best_first)} points." if len(best_first) > MOST else ""
    notes_on_top(figure, data.unranked, more)
    return figure


def cost(data: Data) -> Figure:
    """The metric against the seconds of a trial, each the mean over seeds, and the front of what nothing beats."""
    if data.ranking.best is None:
        return message_figure("No point has all of its trials.")
    seconds = {point: sum(data.seconds(point)) for point in data.ranking.means}
    figure, axes = single_panel()
    sign = 1 if data.ranking.goal == "max" else -1
    front, highest = [], -np.inf
    for point in sorted(seconds, key=lambda point: seconds[point]):
        mean = data.ranking.means[point].mean
        if sign * mean > highest:
            front.append(point)
            highest = sign * mean
        color = OTHER if point == data.baseline else GREY
        axes.plot(seconds[point], mean, "o", color=color, ms=4)
    places = [(seconds[point], data.ranking.means[point].mean) for point in front]
    axes.plot(*zip(*places, strict=True), color=BEST, marker="D", drawstyle="steps-post", lw=1)
    axes.set(
        xlabel=f"Seconds per trial (mean over seeds{', all budgets together' if data.budget else ''})",
        ylabel=f"Mean {data.ranking.metric}",
    )
    notes_on_top(figure, data.unranked)
    name_front(figure, axes, places, [shortened(data.ranking.labels[point]) for point in front], (-1, sign))
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
        mean, legend = steps.mean(), label(str(point), data) if order > 1 else "_"
        width, alpha = (1.4, 1.0) if order > 1 else (0.7, 0.5)
        axes.plot(mean.index, mean, color=color, lw=width, alpha=alpha, label=legend, zorder=1 + order)
        if point == best:
            axes.fill_between(steps.min().index, steps.min(), steps.max(), color=BEST, alpha=0.15, lw=0)
    axes.set(xlabel="Step", ylabel=plain(name))
    if best is not None or data.baseline is not None:
        axes.legend()
    return figure
