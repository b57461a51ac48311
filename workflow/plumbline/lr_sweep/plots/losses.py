"""Figures of losses: by learning rate, by step, and against the edge of stability."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.pyplot import get_cmap

from plumbline.core.present.plotting import FAULT, GREY, PALETTE, message_figure
from plumbline.lr_sweep.analysis.findings import edge_range, optimum_range, rate_text
from plumbline.lr_sweep.analysis.records import number
from plumbline.lr_sweep.analysis.sweep import Analysis
from plumbline.lr_sweep.plots.panels import (
    Tables,
    diverged_crosses,
    entropy_line,
    legend_below,
    loss_axis,
    rate_axis,
    single_panel,
)

NO_LOSS = "No trial has a loss."
BLUE, ORANGE, GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
DIVERGED_LINE = (0, (2, 1.2))
RATE_MARKERS = ("o", "s", "D", "v", "X", "p")
CLASS_STYLES = {"converged": ("o", BLUE), "spiked": ("^", PALETTE[4]), "plateaued": ("s", PALETTE[3])}


def loss_by_rate(tables: Tables) -> Figure:
    """Final validation loss against the learning rate: seeds as dots, their mean as a line with a band over them.

    Diverged trials are red crosses off the scale, and their rates have no mean. The best rate is circled. Where it has
    good neighbours, the parabola through the three is drawn as what it is, with its least point.
    """
    if tables.trained.empty:
        return message_figure(NO_LOSS)
    figure, axes = single_panel()
    stayed = tables.trained[tables.trained["class"] != "diverged"]
    loss = "final_validation_loss"
    ends = [loss, f"{loss}_low", f"{loss}_high"]
    means = tables.rates[ends].where(tables.rates["diverged"] == 0)  # NaN breaks the line
    places = tables.rates["rate"].to_numpy(dtype=np.float64)
    handles = _trials_by_class(axes, stayed)
    if tables.trials["seed"].nunique() > 1:
        (line,) = axes.plot(places, means[loss], color=BLUE, zorder=2, label="Mean over seeds")
        handles.append(line)
    else:
        axes.plot(places, means[loss], color=BLUE, zorder=2)
    if means[ends[1]].notna().any():
        axes.fill_between(places, means[ends[1]], means[ends[2]], color=BLUE, alpha=0.2, lw=0, zorder=1)
        handles.append(Patch(color=BLUE, alpha=0.2, lw=0, label=tables.spread_name.capitalize()))
    rate_axis(axes, places)
    loss_axis(axes, stayed[loss].to_numpy(dtype=np.float64), tables.entropy, diverged=len(stayed) < len(tables.trained))
    handles += _best_mark(axes, tables.analysis)
    handles += _parabola(axes, tables)
    handles += entropy_line(axes, tables.entropy)
    handles += diverged_crosses(axes, tables.trained)
    legend_below(figure, handles, columns=4)
    if not math.isnan(tables.analysis.best_rate):
        where = f"The optimum lies {optimum_range(tables.analysis.optimum)}, as far as this grid shows"
        axes.set_title(where, fontsize=8, loc="left", pad=14)
    return figure


def curves(tables: Tables) -> Figure:
    """Validation loss by step, a line per trial, a colour and a marker per rate; diverged ones dashed.

    What is above the panel stands at its top edge as an open triangle; a red cross is where a diverged trial ended.
    """
    if not any(record["curve"].get("step") for record in tables.records):
        return message_figure("No trial has a validation loss.")
    figure, axes = single_panel(3.6)
    rates = [float(rate) for rate in tables.rates["rate"]]
    looks = _rate_looks(rates, tables.analysis.best_rate)
    _limit_curves(axes, tables)
    beyond = [_curve(axes, record, looks[float(record["rate"])]) for record in tables.records]
    axes.set_xlabel("Step")
    axes.set_ylabel("Validation loss (nats per token)")
    diverged = set(tables.trained["rate"][tables.trained["class"] == "diverged"])
    every: list[Any] = []
    for rate in rates:
        note = " (best)" if rate == tables.analysis.best_rate else ""
        line: Any = DIVERGED_LINE if rate in diverged else "-"
        every.append(Line2D([], [], **looks[rate], ls=line, label=rate_text(rate) + note))
    axes.legend(
        handles=every,
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
        borderaxespad=0,
        title="Learning rate (peak)",
        title_fontsize=7.5,
        handlelength=3,
        ncols=-(-len(rates) // 18),
    )
    handles: list[Any] = list(entropy_line(axes, tables.entropy))
    if any(beyond):
        handles.append(Line2D([], [], ls="", marker="^", mfc="white", mec=GREY, ms=5, label="Above the panel"))
    if (tables.trained["class"] == "diverged").any():
        handles.append(Line2D([], [], ls="", marker="x", color=FAULT, ms=5, mew=1.3, label="End of a diverged trial"))
    legend_below(figure, handles)
    return figure


def edge(tables: Tables) -> Figure:
    """Final validation loss of every trial by class, with the best rate, the stable rates, and the edge.

    Stable are the rates around the best one at which no trial diverged, as far as was measured; the edge lies in the
    hatched gap between the last of them and the first diverged one.
    """
    if tables.trained.empty:
        return message_figure(NO_LOSS)
    figure, axes = single_panel(3.3)
    loss = "final_validation_loss"
    stayed = tables.trained[tables.trained["class"] != "diverged"]
    rate_axis(axes, tables.rates["rate"].to_numpy(dtype=np.float64))
    loss_axis(axes, stayed[loss].to_numpy(dtype=np.float64), tables.entropy, diverged=len(stayed) < len(tables.trained))
    handles = _stable_region(axes, tables)
    handles += entropy_line(axes, tables.entropy)
    handles += _trials_by_class(axes, stayed)
    handles += diverged_crosses(axes, tables.trained)
    legend_below(figure, handles, columns=4)
    axes.set_title(_edge_sentence(tables.analysis), fontsize=8, loc="left", pad=14)
    return figure


def _trials_by_class(axes: Axes, stayed: pd.DataFrame) -> list[Any]:
    """Every trial that did not diverge, with the mark of its class; the legend entries."""
    handles: list[Any] = []
    for name, (marker, colour) in CLASS_STYLES.items():
        group = stayed[stayed["class"] == name]
        if len(group):
            look: dict[str, Any] = {"ls": "", "marker": marker, "color": colour, "ms": 5, "mew": 0.5, "mec": "white"}
            handles += axes.plot(
                group["rate"], group["final_validation_loss"], **look, zorder=3, label=name.capitalize()
            )
    return handles


def _best_mark(axes: Axes, analysis: Analysis) -> list[Any]:
    """A ring around the best rate; its legend entry."""
    if math.isnan(analysis.best_rate):
        return []
    look: dict[str, Any] = {"ls": "", "marker": "o", "mfc": "none", "mec": ORANGE, "ms": 9, "mew": 1.3}
    label = f"Best rate ({rate_text(analysis.best_rate)})"
    return list(axes.plot(analysis.best_rate, analysis.best_loss, **look, zorder=4, label=label))


def _parabola(axes: Axes, tables: Tables) -> list[Any]:
    """The parabola through the best rate and its neighbours, and a line down from its vertex; the legend entry."""
    analysis = tables.analysis
    if not analysis.bracketed:
        return []
    rates = tables.rates["rate"].to_numpy(dtype=np.float64)
    best = int(np.flatnonzero(rates == analysis.best_rate)[0])
    three = slice(best - 1, best + 2)
    losses = tables.rates["final_validation_loss"].to_numpy(dtype=np.float64)[three]
    laid = np.polynomial.Polynomial.fit(np.log(rates[three]), losses, 2)
    along = np.linspace(np.log(rates[best - 1]), np.log(rates[best + 1]), 60)
    vertex, bottom = analysis.optimum.value, axes.get_ylim()[0]
    look: dict[str, Any] = {"color": GREEN, "ls": (0, (1, 1)), "lw": 1.1, "zorder": 2.5}
    label = f"Parabola (least at {rate_text(vertex)})"
    handles = axes.plot(np.exp(along), laid(along), **look, label=label)
    axes.plot([vertex, vertex], [bottom, laid(np.log(vertex))], **look)
    return list(handles)


def _rate_looks(rates: list[float], best: float) -> dict[float, dict[str, Any]]:
    """For each rate the colour and the marker of its lines: neighbours differ in both; the best one is thick orange."""
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


def _curve(axes: Axes, record: dict[str, Any], look: dict[str, Any]) -> bool:
    """Draws one trial; whether some of it is above the panel, where its points stand at the top edge."""
    steps = np.array(record["curve"].get("step") or [], dtype=np.float64)
    losses = np.array([number(value) for value in record["curve"].get("validation_loss") or []])
    if not steps.size:
        return False
    if steps[0] > 0:
        steps, losses = np.append(0.0, steps), np.append(number(record["initial_validation_loss"]), losses)
    top = axes.get_ylim()[1]
    above = ~(losses <= top)  # what is no number has left the panel too
    shown = np.where(above, top, losses)
    diverged = record["class"] == "diverged"
    style: Any = DIVERGED_LINE if diverged else "-"
    order = 2.5 if look["color"] == ORANGE else 2  # the best rate before the others
    axes.plot(steps, shown, **look, ls=style, markevery=np.flatnonzero(~above).tolist(), clip_on=False, zorder=order)
    if above.any():
        axes.plot(steps[above], shown[above], "^", mfc="white", mec=look["color"], ms=5, clip_on=False, zorder=3)
    if diverged:
        axes.plot(steps[-1], shown[-1], "x", color=FAULT, ms=5, mew=1.3, clip_on=False, zorder=4)
    return bool(above.any())


def _stable_region(axes: Axes, tables: Tables) -> list[Any]:
    """Shades the stable rates and the gap that holds the edge, and marks the best rate; the legend entries."""
    analysis = tables.analysis
    if math.isnan(analysis.best_rate):
        return []
    axes.axvspan(*_stable_ends(tables), color=GREEN, alpha=0.1, lw=0, zorder=0)
    handles: list[Any] = [Patch(color=GREEN, alpha=0.2, lw=0, label="Stable: none diverged")]
    handles.append(axes.axvline(analysis.best_rate, color=ORANGE, lw=1.2, zorder=2, label="Best rate"))
    if analysis.edge.reached:
        ends = analysis.edge.last_stable, analysis.edge.first_diverged
        gap = axes.axvspan(*ends, fc="none", ec=GREY, hatch="////", lw=0, alpha=0.35, zorder=0)
        gap.set_label("Gap that holds the edge")
        handles.append(gap)
    return handles


def _stable_ends(tables: Tables) -> tuple[float, float]:
    """The unbroken run, around the best rate, of rates at which no trial diverged."""
    measured = tables.rates[tables.rates["with_loss"] > 0]
    rate, diverged = measured["rate"], measured["diverged"] > 0
    best = tables.analysis.best_rate
    below, above = rate[diverged & (rate < best)], rate[diverged & (rate > best)]
    run = rate[(rate > below.max()) if len(below) else (rate > 0)]
    run = run[run < above.min()] if len(above) else run
    return float(run.min()), float(run.max())


def _edge_sentence(analysis: Analysis) -> str:
    if math.isnan(analysis.best_rate):
        return "No rate converged for all of its seeds"
    best = f"Best rate {rate_text(analysis.best_rate)}"
    if not analysis.edge.reached:
        return f"{best}; edge of stability not reached"
    return f"{best}; edge of stability {edge_range(analysis.edge)}"
