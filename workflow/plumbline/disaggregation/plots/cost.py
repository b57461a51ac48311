"""The figure of the cost model: predicted against measured."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.core.present.panels import DASHES, legend_below, log_axis, single_panel
from plumbline.core.present.plotting import GREY, MARKERS, PALETTE, message_figure
from plumbline.disaggregation.analysis.cost import Prediction, mean_error, rank_correlation
from plumbline.disaggregation.settings import MICRO

EMPTY = "The micro workload has no result, from which the cost model is calibrated."


def cost_model(predictions: Sequence[Prediction]) -> Figure:
    """Milliseconds predicted by a model that has not seen the kind, against measured: a colour a kind."""
    if not predictions:
        return message_figure(EMPTY)
    figure, axes = single_panel(height=4.2)
    kinds = list(dict.fromkeys((one.family, one.workload == MICRO) for one in predictions))
    handles = []
    for number, (family, is_micro) in enumerate(kinds):
        own = [one for one in predictions if one.family == family]
        color = PALETTE[number % len(PALETTE)]
        marker = MARKERS[number % len(MARKERS)]
        filled = color if is_micro else "none"
        times = [1e3 * np.array([getattr(one, side) for one in own]) for side in ("measured", "predicted")]
        axes.plot(*times, marker, color=color, markerfacecolor=filled, alpha=0.8)
        label = family.replace("_", " ")
        handles.append(Line2D([], [], marker=marker, color=color, markerfacecolor=filled, linestyle="", label=label))
    ends = 1e3 * np.array([[one.measured, one.predicted] for one in predictions])
    line = [ends.min(), ends.max()]
    axes.plot(line, line, color=GREY, linestyle=DASHES, linewidth=0.8)
    axes.set_xlabel("Measured (ms)")
    axes.set_ylabel("Predicted (ms)")
    for which in ("x", "y"):
        log_axis(axes, which)
    micro = [one for one in predictions if one.workload == MICRO]
    error, rank = mean_error(micro), rank_correlation(micro)
    axes.set_title(f"Families left out in turn: mean error {100 * error:.0f}%, Spearman {rank:.2f}")
    legend_below(figure, handles, columns=4)
    return figure
