"""Figures of losses: by learning rate, by step, and against the edge of stability."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.pyplot import get_cmap
from matplotlib.ticker import NullLocator

from plumbline.core.plotting import FAULT, GREY, PALETTE, message_figure
from plumbline.lr_sweep.analysis import Analysis
from plumbline.lr_sweep.findings import rate_interval, rate_text
from plumbline.lr_sweep.plots.panels import (
    DASHES,
    Tables,
    diverged_crosses,
    entropy_line,
    legend_below,
    loss_axis,
    rate_axis,
    single_panel,
)
from plumbline.lr_sweep.records import number

NO_LOSS = "No trial has a loss."
BLUE, ORANGE, GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
CLASS_STYLES = {"converged": ("o", BLUE), "spiked": ("^", PALETTE[4]), "plateaued": ("s", PALETTE[3])}


def loss_by_rate(tables: Tables) -> Figure:
    """Final validation loss against the learning rate: seeds as dots, their mean as a line with a 95% band.

    Diverged trials are red crosses at the top edge, and their rates have no mean. The best rate is circled and
    the optimum, where a parabola gave one, is a diamond with its interval.
    """
    if tables.trained.empty:
        return message_figure(NO_LOSS)
    figure, axes = single_panel()
    stayed = tables.trained[tables.trained["class"] != "diverged"]
    loss = "final_validation_loss"
    ends = [loss, f"{loss}_low", f"{loss}_high"]
    means = tables.rates[ends].where(tables.rates["diverged"] == 0)  # NaN breaks the line
    places = tables.rates["rate"].to_numpy(dtype=np.float64)
    handles: list[Any] = []
    if len(stayed):
        (dots,) = axes.plot(
            stayed["rate"], stayed[loss], "o", color=BLUE, ms=4.5, mew=0, alpha=0.5, zorder=3, label="A seed"
        )
        (line,) = axes.plot(places, means[loss], color=BLUE, zorder=2, label="Mean over seeds")
        handles += [dots, line]
    if means[ends[1]].notna().any():
        axes.fill_between(places, means[ends[1]], means[ends[2]], color=BLUE, alpha=0.2, lw=0, zorder=1)
        handles.append(Patch(color=BLUE, alpha=0.2, lw=0, label="95% interval"))
    rate_axis(axes, tables.rates["rate"].to_numpy(dtype=np.float64))
    loss_axis(axes, stayed[loss].to_numpy(dtype=np.float64), tables.entropy)
    handles += _best_mark(axes, tables.analysis)
    handles += entropy_line(axes, tables.entropy)
    handles += diverged_crosses(axes, tables.trained)
    legend_below(figure, handles, columns=4)
    return figure


def curves(tables: Tables) -> Figure:
    """Validation loss by step, a line per trial, coloured by the logarithm of its rate; diverged ones dashed.

    A loss that is higher than the initial one leaves the panel; a red cross shows where a diverged trial did,
    or where it ended.
    """
    if not any(record["curve"].get("step") for record in tables.records):
        return message_figure("No trial has a validation loss.")
    figure, axes = single_panel(3.4)
    rates = tables.rates["rate"].to_numpy(dtype=np.float64)
    colours = get_cmap("viridis")
    few = 1 if len(rates) > 1 else 2  # LogNorm needs two ends
    norm = LogNorm(rates.min() / few, rates.max() * few)
    _limit_curves(axes, tables)
    for record in tables.records:
        _curve(axes, record, colours, norm)
    axes.set_xlabel("Step")
    axes.set_ylabel("Validation loss (nats per token)")
    every = -(-len(rates) // 12)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, label="Learning rate (peak)", aspect=30, pad=0.02)
    bar.set_ticks(rates[::every].tolist(), labels=[rate_text(rate) for rate in rates[::every]])
    bar.ax.yaxis.set_minor_locator(NullLocator())
    handles = entropy_line(axes, tables.entropy)
    if (tables.trained["class"] == "diverged").any():
        look: dict[str, Any] = {"color": GREY, "ls": (0, (2, 1.2)), "marker": "x", "mec": FAULT, "ms": 4.5, "mew": 1.2}
        handles.append(Line2D([], [], **look, label="Diverged"))
    legend_below(figure, handles)
    return figure


def edge(tables: Tables) -> Figure:
    """Final validation loss of every trial by class, with the best rate, the stable region, and the edge.

    The stable region reaches from the lowest good rate to the edge, or as far as was measured;
    the edge itself is known to lie in the hatched gap between the last good rate and the first bad one.
    """
    if tables.trained.empty:
        return message_figure(NO_LOSS)
    figure, axes = single_panel(3.3)
    loss = "final_validation_loss"
    stayed = tables.trained[tables.trained["class"] != "diverged"]
    rate_axis(axes, tables.rates["rate"].to_numpy(dtype=np.float64))
    loss_axis(axes, stayed[loss].to_numpy(dtype=np.float64), tables.entropy)
    handles = _stable_region(axes, tables)
    handles += entropy_line(axes, tables.entropy)
    for name, (marker, colour) in CLASS_STYLES.items():
        group = stayed[stayed["class"] == name]
        if len(group):
            look: dict[str, Any] = {"ls": "", "marker": marker, "color": colour, "ms": 5, "mew": 0.5, "mec": "white"}
            (points,) = axes.plot(group["rate"], group[loss], **look, zorder=3, label=name.capitalize())
            handles.append(points)
    handles += diverged_crosses(axes, tables.trained)
    legend_below(figure, handles, columns=5)
    axes.set_title(_edge_sentence(tables.analysis), fontsize=8, loc="left", pad=9)
    return figure


def _best_mark(axes: Axes, analysis: Analysis) -> list[Any]:
    """A ring around the best rate, and the optimum with its interval at the bottom; their legend entries."""
    if math.isnan(analysis.best_rate):
        return []
    look: dict[str, Any] = {"ls": "", "marker": "o", "mfc": "none", "mec": ORANGE, "ms": 9, "mew": 1.3}
    handles = axes.plot(
        analysis.best_rate, analysis.best_loss, **look, zorder=4, label=f"Best rate ({rate_text(analysis.best_rate)})"
    )
    if not analysis.bracketed:
        return handles
    value, bottom = analysis.optimum, axes.get_xaxis_transform()
    if not math.isnan(value.low):
        axes.plot([value.low, value.high], [0.0, 0.0], color=GREEN, lw=2.4, transform=bottom, clip_on=False, zorder=4)
    diamond: dict[str, Any] = {"marker": "D", "ls": "", "color": GREEN, "ms": 4.5, "mew": 0.5, "mec": "white"}
    handles += axes.plot(
        value.value, 0.0, **diamond, transform=bottom, clip_on=False, zorder=5, label=f"Optimum {rate_interval(value)}"
    )
    return handles


def _limit_curves(axes: Axes, tables: Tables) -> None:
    """Limits by the initial losses and all that lies below them."""
    start = tables.trained["initial_validation_loss"].to_numpy(dtype=np.float64)
    values = np.array([number(v) for record in tables.records for v in record["curve"].get("validation_loss", [])])
    steps = max(max(record["curve"].get("step") or [0]) for record in tables.records)
    start, values = start[np.isfinite(start)], values[np.isfinite(values)]
    top = start.max() if start.size else values.max() if values.size else 1.0
    low = min(values.min() if values.size else top, top, tables.entropy if tables.entropy > 0 else top)
    room = max(top - low, 0.05)
    axes.set_ylim(low - 0.05 * room, top + 0.06 * room)
    axes.set_xlim(-0.01 * steps, 1.03 * max(steps, 1))


def _curve(axes: Axes, record: dict[str, Any], colours: Colormap, norm: LogNorm) -> None:
    steps = np.array(record["curve"].get("step") or [], dtype=np.float64)
    losses = np.array([number(value) for value in record["curve"].get("validation_loss") or []])
    if not steps.size:
        return
    if steps[0] > 0:
        steps, losses = np.append(0.0, steps), np.append(number(record["initial_validation_loss"]), losses)
    diverged = record["class"] == "diverged"
    style: Any = (0, (2, 1.2)) if diverged else "-"
    axes.plot(steps, losses, color=colours(norm(record["rate"])), ls=style, lw=1.0, zorder=2)
    if diverged:
        place = _where_it_left(steps, losses, axes.get_ylim()[1])
        axes.plot(*place, "x", color=FAULT, ms=4.5, mew=1.2, clip_on=False, zorder=4)


def _where_it_left(steps: np.ndarray, losses: np.ndarray, top: float) -> tuple[float, float]:
    """Where a curve leaves a panel through its `top`, or where it ends if it stays; a loss not finite leaves it."""
    outside = np.flatnonzero(~(losses <= top))
    if not outside.size:
        return float(steps[-1]), float(losses[-1])
    first = int(outside[0])
    if first == 0 or not np.isfinite(losses[first]):
        return float(steps[first]), top
    before = slice(first - 1, first + 1)
    return float(np.interp(top, losses[before], steps[before])), top


def _stable_region(axes: Axes, tables: Tables) -> list[Any]:
    """Shades the stable rates and the gap that holds the edge, and marks best rate and edge; the legend entries."""
    analysis = tables.analysis
    if math.isnan(analysis.best_rate):
        return []
    low, high = _stable_ends(tables)
    axes.axvspan(low, high, color=GREEN, alpha=0.1, lw=0, zorder=0)
    handles: list[Any] = [Patch(color=GREEN, alpha=0.2, lw=0, label="Stable")]
    handles.append(axes.axvline(analysis.best_rate, color=ORANGE, lw=1.2, zorder=2, label="Best rate"))
    if analysis.edge.reached:
        gap = axes.axvspan(
            analysis.edge.last_good,
            analysis.edge.first_bad,
            fc="none",
            ec=GREY,
            hatch="////",
            lw=0,
            alpha=0.35,
            zorder=0,
        )
        gap.set_label("Gap that holds the edge")
        handles.append(axes.axvline(high, color=FAULT, ls=DASHES, lw=1.2, zorder=2, label="Edge of stability"))
        handles.append(gap)
    return handles


def _stable_ends(tables: Tables) -> tuple[float, float]:
    """The unbroken run of good rates around the best one, up to the edge where it was reached."""
    measured = tables.rates[tables.rates["with_loss"] > 0]
    rate, good = measured["rate"], measured["converged"] + measured["spiked"] == measured["with_loss"]
    best = tables.analysis.best_rate
    bad_below, bad_above = rate[~good & (rate < best)], rate[~good & (rate > best)]
    run = rate[(rate > bad_below.max()) if len(bad_below) else (rate > 0)]
    run = run[run < bad_above.min()] if len(bad_above) else run
    edge = tables.analysis.edge
    return float(run.min()), edge.rate if edge.reached else float(run.max())


def _edge_sentence(analysis: Analysis) -> str:
    if math.isnan(analysis.best_rate):
        return "No rate converged for all of its seeds"
    best = f"Best rate {rate_text(analysis.best_rate)}"
    if not analysis.edge.reached:
        return f"{best}; edge of stability not reached"
    return f"{best}; edge of stability {rate_text(analysis.edge.rate)}, {analysis.edge_over_best:.3g} × the best rate"
