"""Figures of losses: by learning rate and by step."""

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
from plumbline.lr_sweep.analysis.findings import optimum_range, rate_text
from plumbline.lr_sweep.analysis.sweep import Analysis
from plumbline.lr_sweep.plots.panels import (
    SweepData,
    diverged_crosses,
    entropy_line,
    loss_axis,
    rate_axis,
    table_lines,
)
from plumbline.lr_sweep.record import Stability, TrialRecord, or_nan

NO_LOSS = "No trial has a loss."
BLUE, ORANGE, GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
DIVERGED_LINE = (0, (2, 1.2))
RATE_MARKERS = ("o", "s", "D", "v", "X", "p")
CLASS_STYLES = {"converged": ("o", BLUE), "spiked": ("^", PALETTE[4]), "plateaued": ("s", PALETTE[3])}


def loss_by_rate(data: SweepData) -> Figure:
    """Final validation loss against the learning rate: seeds as dots, their mean as a line with a band for the spread.

    Diverged trials are red crosses off the scale, and their rates have no mean. The best rate is circled. When both
    of its neighbours are good, the parabola through the three is drawn with its minimum. A star is the longer training
    at the best rate; horizontal lines are the n-gram tables.
    """
    if data.trained.empty:
        return message_figure(NO_LOSS)
    figure, axes = single_panel()
    stable = data.trained[data.trained["class"] != "diverged"]
    loss = "final_validation_loss"
    ends = [loss, f"{loss}_low", f"{loss}_high"]
    means = data.rates[ends].where(data.rates["diverged"] == 0)  # NaN breaks the line
    places = data.rates["rate"].to_numpy(dtype=np.float64)
    handles = trials_by_class(axes, stable)
    line = axes.plot(places, means[loss], color=BLUE, zorder=2, label="Mean over seeds")
    handles += line if data.trials["seed"].nunique() > 1 else []
    if means[ends[1]].notna().any():
        axes.fill_between(places, means[ends[1]], means[ends[2]], color=BLUE, alpha=0.2, lw=0, zorder=1)
        handles.append(Patch(color=BLUE, alpha=0.2, lw=0, label=data.spread_name.capitalize()))
    rate_axis(axes, places)
    longer = [] if data.longer is None else [or_nan(data.longer.final_validation_loss)]
    levels = [*stable[loss], data.entropy, *data.tables.values(), *longer]
    loss_axis(axes, levels, diverged=len(stable) < len(data.trained))
    handles += _best_mark(axes, data.analysis)
    handles += _parabola(axes, data)
    handles += _longer_mark(axes, data.longer)
    handles += table_lines(axes, data)
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


def trials_by_class(axes: Axes, stable: pd.DataFrame) -> list[Any]:
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


def _longer_mark(axes: Axes, longer: TrialRecord | None) -> list[Any]:
    """A star at the loss of the longer training; its legend entry."""
    if longer is None:
        return []
    style: dict[str, Any] = {"ls": "", "marker": "*", "color": ORANGE, "ms": 9, "mew": 0.5, "mec": "white"}
    label = f"Best model ({longer.steps:,} steps)"
    return list(axes.plot(longer.rate, or_nan(longer.final_validation_loss), **style, zorder=4, label=label))


def _parabola(axes: Axes, data: SweepData) -> list[Any]:
    """The parabola through the best rate and its neighbours, its minimum marked; the legend entry."""
    analysis = data.analysis
    if not analysis.bracketed:
        return []
    rates = data.rates["rate"].to_numpy(dtype=np.float64)
    best = int(np.flatnonzero(rates == analysis.best_rate)[0])
    three = slice(best - 1, best + 2)
    losses = data.rates["final_validation_loss"].to_numpy(dtype=np.float64)[three]
    parabola = np.polynomial.Polynomial.fit(np.log(rates[three]), losses, 2)
    along = np.linspace(np.log(rates[best - 1]), np.log(rates[best + 1]), 60)
    vertex = analysis.optimum.value
    axes.plot(np.exp(along), parabola(along), color=GREEN, ls=(0, (1, 1)), lw=1.1, zorder=2.5)
    style: dict[str, Any] = {"color": GREEN, "marker": "D", "ms": 4, "mew": 0.5, "mec": "white"}
    axes.plot(vertex, parabola(np.log(vertex)), **style, zorder=5)
    return [Line2D([], [], ls=(0, (1, 1)), lw=1.1, **style, label=f"Parabola, minimum at {rate_text(vertex)}")]


def _rate_styles(rates: list[float], best: float) -> dict[float, dict[str, Any]]:
    """Colour and marker of each rate's lines: no two colours are alike; the best rate is thick and black."""
    shades = get_cmap("turbo")(np.linspace(0.04, 0.96, len(rates)))
    return {
        rate: {
            "color": "black" if rate == best else tuple(shade),
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
    order = 2.5 if style["color"] == "black" else 2  # the best rate in front of the others
    visible = np.flatnonzero(~above).tolist()
    axes.plot(steps, clipped, **style, ls=dashes, markevery=visible, clip_on=False, zorder=order)
    if above.any():
        axes.plot(steps[above], clipped[above], "^", mfc="white", mec=style["color"], ms=5, clip_on=False, zorder=3)
    if diverged:
        axes.plot(steps[-1], clipped[-1], "x", color=FAULT, ms=5, mew=1.3, clip_on=False, zorder=4)
    return bool(above.any())
