"""The figure of the edge of stability: how far and how long the training loss was above the initial loss."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from plumbline.core.present.panels import DASHES, legend_below, log_axis
from plumbline.core.present.plotting import FAULT, GREY, PALETTE, WIDTH, message_figure
from plumbline.lr_sweep.analysis.findings import edge_range, rate_text
from plumbline.lr_sweep.analysis.sweep import Analysis
from plumbline.lr_sweep.plots.losses import CLASS_STYLES, NO_LOSS
from plumbline.lr_sweep.plots.panels import SweepData, rate_axis

ORANGE, GREEN = PALETTE[1], PALETTE[2]


def edge(data: SweepData) -> Figure:
    """Peak of the training loss over the initial loss, and the share of steps above it, of every trial by class.

    A trial whose loss was not finite is drawn at the top of the upper panel. The stable rates are the measured ones
    around the best rate without a diverged trial; the edge lies in the hatched gap between the last of them and the
    first diverged rate.
    """
    if data.trained.empty:
        return message_figure(NO_LOSS)
    figure, (peak, share) = plt.subplots(2, 1, figsize=(WIDTH, 4.2), sharex=True)
    finite = np.array([value for value in data.trained["peak_ratio"] if math.isfinite(value)])
    top = 3 * max(finite.max() if finite.size else 1.0, 2.0)
    peak.set_ylim(min(finite.min() if finite.size else 1.0, 0.9), top)
    log_axis(peak)
    peak.set_ylabel("Peak / initial loss")
    share.set_ylabel("Steps above initial loss (%)")
    share.set_ylim(-4, 104)
    handles: list[Any] = []
    for axes in (peak, share):
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        handles = _stable_region(axes, data)
    peak.axhline(1, color=GREY, ls=DASHES, lw=0.9, zorder=1)
    rate_axis(share, data.rates["rate"].to_numpy(dtype=np.float64))
    legend_below(figure, [*handles, *_trials(peak, share, data, top)], columns=4)
    peak.set_title(_edge_sentence(data.analysis), fontsize=8, loc="left")
    return figure


def _trials(peak: Axes, share: Axes, data: SweepData, top: float) -> list[Line2D]:
    """Every trial in both panels, with the marker of its class; the legend entries."""
    handles: list[Line2D] = []
    for name, (marker, colour) in {**CLASS_STYLES, "diverged": ("x", FAULT)}.items():
        group = data.trained[data.trained["class"] == name]
        if group.empty:
            continue
        edge = {"mew": 1.3} if marker == "x" else {"mew": 0.5, "mec": "white"}
        style: dict[str, Any] = {"ls": "", "marker": marker, "color": colour, "ms": 5, "zorder": 3, **edge}
        ratios = np.where(np.isfinite(group["peak_ratio"]), group["peak_ratio"], top)
        peak.plot(group["rate"], ratios, **style, clip_on=False)
        handles += share.plot(group["rate"], 100 * group["share_above_initial"], **style, label=name.capitalize())
    if not np.isfinite(data.trained["peak_ratio"]).all():
        place: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "bottom"}
        peak.annotate("top edge: not finite", (1, 1), xytext=(0, 5), fontsize=7, **place)
    return handles


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
