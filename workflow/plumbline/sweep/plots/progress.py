"""The figure of what the sweep has found, point after point."""

import numpy as np
from matplotlib.figure import Figure

from plumbline.core.present.panels import legend_below, notes_on_top, single_panel
from plumbline.core.present.plotting import GREY, PALETTE, message_figure
from plumbline.sweep.analysis.ranking import Ranking
from plumbline.sweep.plots.axes import plain
from plumbline.sweep.plots.data import Data


def progress(data: Data) -> Figure:
    """Each point's mean over seeds in the order in which the points were asked for, and the best so far.

    With halving, the points of each budget follow each other in a color of their own, and the best begins again.
    """
    if not any(stage.means for stage in data.stages):
        return message_figure("No point has all of its trials.")
    figure, axes = single_panel()
    handles, first = [], 1
    for number, stage in enumerate(data.stages):
        color = PALETTE[number % len(PALETTE)]
        order = {point: first + place for place, point in enumerate(stage.labels)}
        x, means = [order[point] for point in stage.means], [mean.mean for mean in stage.means.values()]
        axes.plot(x, means, "o", color=color if len(data.stages) > 1 else GREY, alpha=0.5, ms=3.5, mec="none")
        best = np.maximum.accumulate(means) if stage.goal == "max" else np.minimum.accumulate(means)
        (line,) = axes.plot(x, best, color=color, drawstyle="steps-post", label=_label(stage, data))
        handles.append(line)
        first += len(order)
    axes.set(xlabel="Point, in the order asked for", ylabel=f"Mean {plain(data.ranking.metric)}")
    legend_below(figure, handles)
    notes_on_top(figure, data.unranked)
    return figure


def _label(stage: Ranking, data: Data) -> str:
    if data.budget is None:
        return "Best so far"
    return plain(f"Best so far with {data.budget}={stage.records[0].parameters[data.budget]}")
