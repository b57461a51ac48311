"""Figures of losses: by learning rate, by step, and around the edge of stability."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.pyplot import get_cmap

from plumbline.core.present.panels import legend_below, single_panel
from plumbline.core.present.plotting import FAULT, GREY, PALETTE, message_figure
from plumbline.lr_sweep.analysis.findings import edge_range, optimum_range, rate_text
from plumbline.lr_sweep.analysis.sweep import Analysis
from plumbline.lr_sweep.plots.panels import SweepData, diverged_crosses, entropy_line, loss_axis, rate_axis
from plumbline.lr_sweep.record import Stability, TrialRecord

NO_LOSS = "No trial has a loss."
BLUE, ORANGE, GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
DIVERGED_LINE = (0, (2, 1.2))
RATE_MARKERS = ("o", "s", "D", "v", "X", "p")
CLASS_STYLES = {"converged": ("o", BLUE), "spiked": ("^", PALETTE[4]), "plateaued": ("s", PALETTE[3])}


def loss_by_rate(data: SweepData) -> Figure:
    """Final validation loss against the learning rate: seeds as dots, their mean as a line with a band for the spread.

    Diverged trials are red crosses off the scale, and their rates have no mean. The best rate is circled. When both
    of its neighbours are good, the parabola through the three is drawn with its minimum.
    """
    if data.trained.empty:
        return message_figure(NO_LOSS)
    figure, axes = single_panel()
    stable = data.trained[data.trained["class"] != "diverged"]
    loss = "final_validation_loss"
    ends = [loss, f"{loss}_low", f"{loss}_high"]
    means = data.rates[ends].where(data.rates["diverged"] == 0)  # NaN breaks the line
    places = data.rates["rate"].to_numpy(dtype=np.float64)
    handles = _trials_by_class(axes, stable)
    line = axes.plot(places, means[loss], color=BLUE, zorder=2, label="Mean over seeds")
    handles += line if data.trials["seed"].nunique() > 1 else []
    if means[ends[1]].notna().any():
        axes.fill_between(places, means[ends[1]], means[ends[2]], color=BLUE, alpha=0.2, lw=0, zorder=1)
        handles.append(Patch(color=BLUE, alpha=0.2, lw=0, label=data.spread_name.capitalize()))
    rate_axis(axes, places)
    loss_axis(axes, stable[loss].to_numpy(dtype=np.float64), data.entropy, diverged=len(stable) < len(data.trained))
    handles += _best_mark(axes, data.analysis)
    handles += _parabola(axes, data)
    handles += entropy_line(axes, data.entropy)
    handles += diverged_crosses(axes, data.trained)
    legend_below(figure, handles, columns=4)
    if not math.isnan(data.analysis.best_rate):
        where = f"Optimum {optimum_range(data.analysis.optimum)}"
        axes.set_title(where, fontsize=8, loc="left", pad=14)
    return figure


def curves(data: SweepData) -> Figure:
    """Validation loss by step, a line per trial, a colour and a marker per rate; diverged rates are dashed.

    Points above the panel are drawn at its top edge as open triangles; a red cross marks the end of a diverged trial.
    """
    trained = [record for record in data.records if record.curve]
    if not trained:
        return message_figure("No trial has a validation loss.")
    figure, axes = single_panel(3.6)
    rates = [float(rate) for rate in data.rates["rate"]]
    styles = _rate_styles(rates, data.analysis.best_rate)
    _limit_curves(axes, data)
    beyond = [_curve(axes, record, styles[record.rate]) for record in trained]
    axes.set_xlabel("Step")
    axes.set_ylabel("Validation loss (nats per token)")
    diverged = set(data.trained["rate"][data.trained["class"] == "diverged"])
    lines: list[Any] = []
    for rate in rates:
        note = " (best)" if rate == data.analysis.best_rate else ""
        dashes: Any = DIVERGED_LINE if rate in diverged else "-"
        lines.append(Line2D([], [], **styles[rate], ls=dashes, label=rate_text(rate) + note))
    axes.legend(
        handles=lines,
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
        borderaxespad=0,
        title="Learning rate (peak)",
        title_fontsize=7.5,
        handlelength=3,
        ncols=-(-len(rates) // 18),
    )
    handles: list[Any] = list(entropy_line(axes, data.entropy))
    if any(beyond):
        handles.append(Line2D([], [], ls="", marker="^", mfc="white", mec=GREY, ms=5, label="Above the panel"))
    if (data.trained["class"] == "diverged").any():
        handles.append(Line2D([], [], ls="", marker="x", color=FAULT, ms=5, mew=1.3, label="End of a diverged trial"))
    legend_below(figure, handles)
    return figure


def edge(data: SweepData) -> Figure:
    """Final validation loss of every trial by class, with the best rate, the stable rates and the edge.

    The stable rates are the measured ones around the best rate without a diverged trial; the edge lies in the hatched
    gap between the last of them and the first diverged rate.
    """
    if data.trained.empty:
        return message_figure(NO_LOSS)
    figure, axes = single_panel(3.3)
    loss = "final_validation_loss"
    stable = data.trained[data.trained["class"] != "diverged"]
    rate_axis(axes, data.rates["rate"].to_numpy(dtype=np.float64))
    loss_axis(axes, stable[loss].to_numpy(dtype=np.float64), data.entropy, diverged=len(stable) < len(data.trained))
    handles = _stable_region(axes, data)
    handles += entropy_line(axes, data.entropy)
    handles += _trials_by_class(axes, stable)
    handles += diverged_crosses(axes, data.trained)
    legend_below(figure, handles, columns=4)
    axes.set_title(_edge_sentence(data.analysis), fontsize=8, loc="left", pad=14)
    return figure


def _trials_by_class(axes: Axes, stable: pd.DataFrame) -> list[Any]:
    """Every trial that did not diverge, with the marker of its class; the legend entries."""
    handles: list[Any] = []
    for name, (marker, colour) in CLASS_STYLES.items():
        group = stable[stable["class"] == name]
        if len(group):
            style: dict[str, Any] = {"ls": "", "marker": marker, "color": colour, "ms": 5, "mew": 0.5, "mec": "white"}
            handles += axes.plot(
                group["rate"], group["final_validation_loss"], **style, zorder=3, label=name.capitalize()
            )
    return handles


def _best_mark(axes: Axes, analysis: Analysis) -> list[Any]:
    """A ring around the best rate; its legend entry."""
    if math.isnan(analysis.best_rate):
        return []
    style: dict[str, Any] = {"ls": "", "marker": "o", "mfc": "none", "mec": ORANGE, "ms": 9, "mew": 1.3}
    label = f"Best rate ({rate_text(analysis.best_rate)})"
    return list(axes.plot(analysis.best_rate, analysis.best_loss, **style, zorder=4, label=label))


def _parabola(axes: Axes, data: SweepData) -> list[Any]:
    """The parabola through the best rate and its neighbours, with a line down from its minimum; the legend entry."""
    analysis = data.analysis
    if not analysis.bracketed:
        return []
    rates = data.rates["rate"].to_numpy(dtype=np.float64)
    best = int(np.flatnonzero(rates == analysis.best_rate)[0])
    three = slice(best - 1, best + 2)
    losses = data.rates["final_validation_loss"].to_numpy(dtype=np.float64)[three]
    parabola = np.polynomial.Polynomial.fit(np.log(rates[three]), losses, 2)
    along = np.linspace(np.log(rates[best - 1]), np.log(rates[best + 1]), 60)
    vertex, bottom = analysis.optimum.value, axes.get_ylim()[0]
    style: dict[str, Any] = {"color": GREEN, "ls": (0, (1, 1)), "lw": 1.1, "zorder": 2.5}
    label = f"Parabola (minimum at {rate_text(vertex)})"
    handles = axes.plot(np.exp(along), parabola(along), **style, label=label)
    axes.plot([vertex, vertex], [bottom, parabola(np.log(vertex))], **style)
    return list(handles)


def _rate_styles(rates: list[float], best: float) -> dict[float, dict[str, Any]]:
    """Colour and marker of each rate's lines: neighbours differ in both; the best rate is thick and orange."""
    shades = get_cmap("viridis")(np.linspace(0, 0.93, len(rates)))
    return {
        rate: {
            "color": ORANGE if rate == best else tuple(shade),
            "marker": RATE_MARKERS[index % len(RATE_MARKERS)],
            "lw": 2.0 if rate == best else 1.0,
            "ms": 5.0 if rate == best else 4.0,
            "mew": 0.3,
            "mec": "white",
        }
        for index, (rate, shade) in enumerate(zip(rates, shades, strict=True))
    }


def _limit_curves(axes: Axes, data: SweepData) -> None:
    """Limits that show the initial losses and everything below them."""
    start = data.trained["initial_validation_loss"].to_numpy(dtype=np.float64)
    curves = [record.curve for record in data.records if record.curve]
    values = np.array([loss for curve in curves for loss in curve.validation_loss])
    steps = max(max(curve.step) for curve in curves)
    start, values = start[np.isfinite(start)], values[np.isfinite(values)]
    top = start.max() if start.size else values.max() if values.size else 1.0
    low = min(values.min() if values.size else top, top, data.entropy if data.entropy > 0 else top)
    room = max(top - low, 0.05)
    axes.set_ylim(low - 0.05 * room, top + 0.06 * room)
    axes.set_xlim(-0.01 * steps, 1.03 * max(steps, 1))


def _curve(axes: Axes, record: TrialRecord, style: dict[str, Any]) -> bool:
    """Draws one trial, points above the panel at its top edge; returns whether there are any."""
    assert record.curve is not None
    steps, losses = np.array(record.curve.step), np.array(record.curve.validation_loss)
    top = axes.get_ylim()[1]
    above = ~(losses <= top)  # NaN is above as well
    clipped = np.where(above, top, losses)
    diverged = record.stability is Stability.DIVERGED
    dashes: Any = DIVERGED_LINE if diverged else "-"
    order = 2.5 if style["color"] == ORANGE else 2  # the best rate in front of the others
    visible = np.flatnonzero(~above).tolist()
    axes.plot(steps, clipped, **style, ls=dashes, markevery=visible, clip_on=False, zorder=order)
    if above.any():
        axes.plot(steps[above], clipped[above], "^", mfc="white", mec=style["color"], ms=5, clip_on=False, zorder=3)
    if diverged:
        axes.plot(steps[-1], clipped[-1], "x", color=FAULT, ms=5, mew=1.3, clip_on=False, zorder=4)
    return bool(above.any())


def _stable_region(axes: Axes, data: SweepData) -> list[Any]:
    """Shades the stable rates and the gap that contains the edge, and marks the best rate; the legend entries."""
    analysis = data.analysis
    if math.isnan(analysis.best_rate):
        return []
    axes.axvspan(*_stable_ends(data), color=GREEN, alpha=0.1, lw=0, zorder=0)
    handles: list[Any] = [Patch(color=GREEN, alpha=0.2, lw=0, label="Stable: no trial diverged")]
    handles.append(axes.axvline(analysis.best_rate, color=ORANGE, lw=1.2, zorder=2, label="Best rate"))
    if analysis.edge.reached:
        ends = analysis.edge.last_stable, analysis.edge.first_diverged
        gap = axes.axvspan(*ends, fc="none", ec=GREY, hatch="////", lw=0, alpha=0.35, zorder=0)
        gap.set_label("The edge is in this gap")
        handles.append(gap)
    return handles


def _stable_ends(data: SweepData) -> tuple[float, float]:
    """Lowest and highest of the consecutive rates around the best one at which no trial diverged."""
    measured = data.rates[data.rates["with_loss"] > 0]
    rate, diverged = measured["rate"], measured["diverged"] > 0
    best = data.analysis.best_rate
    below, above = rate[diverged & (rate < best)], rate[diverged & (rate > best)]
    stable = rate[(rate > below.max()) if len(below) else (rate > 0)]
    stable = stable[stable < above.min()] if len(above) else stable
    return float(stable.min()), float(stable.max())


def _edge_sentence(analysis: Analysis) -> str:
    if math.isnan(analysis.best_rate):
        return "No rate converged for all of its seeds"
    best = f"Best rate {rate_text(analysis.best_rate)}"
    if not analysis.edge.reached:
        return f"{best}; edge of stability not reached"
    return f"{best}; edge of stability {edge_range(analysis.edge)}"
