"""The figure of two metrics against each other, and the front that no point beats in both."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plumbline.core.present.panels import log_axis, notes_on_top, single_panel
from plumbline.core.present.plotting import LABEL_POINTS, PALETTE, label_front, message_figure
from plumbline.sweep.analysis.findings import RIVAL
from plumbline.sweep.analysis.frames import points_of
from plumbline.sweep.analysis.front import Front
from plumbline.sweep.analysis.ranking import Ranking
from plumbline.sweep.naming import point_label
from plumbline.sweep.plots.axes import is_wide, plain
from plumbline.sweep.plots.data import Data

FRONT, BASELINE, LIGHT = PALETTE[0], PALETTE[1], "#B4B4B4"
MOST = 14
"""Points of the front that are named."""
SIGN_WIDTH = 0.58
"""Of a letter, by its height, on average."""
LONGEST = 48
PASSES = 4
"""Making room for labels on one side moves the points, and so the labels."""


def pareto(data: Data) -> Figure:
    """The second metric across, the first one upwards; points with both intervals, the front as a step line."""
    front = data.front
    assert front is not None
    if not front.points:
        return message_figure("No point has all of its trials.")
    upwards, across = front.rankings
    figure, axes = single_panel(height=3.6)
    for ranking, which in ((across, "x"), (upwards, "y")):
        if is_wide(values := [mean.mean for mean in ranking.means.values()]):
            axes.set(**{f"{which}lim": (min(values) / 1.3, max(values) * 1.3)})
            log_axis(axes, which)
    for point, share in front.shares.items():
        inside, is_rival = point in front.points, share >= RIVAL
        color = BASELINE if point == data.baseline else FRONT if inside or is_rival else LIGHT
        (x, y), (x_reach, y_reach) = zip(*(_with_reach(ranking, point) for ranking in (across, upwards)), strict=True)
        order = 3 if inside else 2
        axes.errorbar(x, y, xerr=x_reach, yerr=y_reach, fmt="none", ecolor=color, elinewidth=0.7, zorder=order)
        face = color if inside or not is_rival else "w"
        axes.plot(x, y, "o", color=color, markerfacecolor=face, zorder=order)
    best = sorted((across.means[point].mean, upwards.means[point].mean) for point in front.points)
    steps: Literal["steps-post", "steps-pre"] = "steps-post" if across.goal == "min" else "steps-pre"
    axes.plot(*zip(*best, strict=True), color=FRONT, lw=1, drawstyle=steps)
    for ranking, which in ((across, "x"), (upwards, "y")):
        axes.set(**{f"{which}label": f"Mean {plain(ranking.metric)} ({_better(ranking, which)} is better)"})
    named = _named(front)
    known = points_of(data.records)
    labels = [_label(known[point], front.shares[point], data) for point in named]
    places = [(across.means[point].mean, upwards.means[point].mean) for point in named]
    side, up = (1 if ranking.goal == "max" else -1 for ranking in (across, upwards))
    name_front(figure, axes, places, labels, (side, up))
    more = f"{len(named)} of the {len(front.points)} points on the front are named."
    notes_on_top(figure, data.unranked, more if len(named) < len(front.points) else "")
    return figure


def _with_reach(ranking: Ranking, point: str) -> tuple[float, np.ndarray]:
    """The mean, and the lengths of its bars (2, 1); 0 where one seed gives none."""
    mean = ranking.means[point]
    return mean.mean, np.nan_to_num([[mean.mean - mean.low], [mean.high - mean.mean]])


def _better(ranking: Ranking, which: str) -> str:
    words = {"x": ("left", "right"), "y": ("lower", "higher")}[which]
    return words[ranking.goal == "max"]


def _named(front: Front) -> list[str]:
    """The points of the front that are named: all, or every second or third of many."""
    return front.points[:: -(-len(front.points) // MOST)]


def name_front(
    figure: Figure,
    axes: Axes,
    places: Sequence[tuple[float, float]],
    labels: Sequence[str],
    toward: tuple[int, int],
) -> None:
    """Names the points of a front `toward` the corner of better values, where nothing is, and makes room there."""
    side, up = toward
    for _ in range(PASSES):
        figure.draw_without_rendering()
        box = axes.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        width, height = 72 * box.width, 72 * box.height
        at = axes.transAxes.inverted().transform(axes.transData.transform(places))
        free = [x if side < 0 else 1 - x for x in at[:, 0]]
        needed = [(14 + SIGN_WIDTH * LABEL_POINTS * len(text)) / width for text in labels]
        lacking = max((need - have) / (1 - min(need, 0.9)) for need, have in zip(needed, free, strict=True))
        _extend(axes, "x", side, lacking)
        last = float("-inf")
        for y in sorted(up * y for y in at[:, 1]):
            last = max(y, last + 1.35 * LABEL_POINTS / height)
        _extend(axes, "y", up, last - (1 if up > 0 else 0) + LABEL_POINTS / height)
    figure.draw_without_rendering()
    notes = label_front(axes, places, labels, toward)
    for note in notes:
        note.set_parse_math(False)


def _extend(axes: Axes, which: str, side: int, share: float) -> None:
    """Moves the end of an axis outwards by a share of its length, if that is above 0."""
    if share <= 0:
        return
    axis = axes.xaxis if which == "x" else axes.yaxis
    ends = axis.get_transform().transform(axis.get_view_interval())
    ends[int(side > 0)] += side * share * (ends[1] - ends[0])
    axes.set(**{f"{which}lim": axis.get_transform().inverted().transform(ends)})


def shortened(text: str) -> str:
    """A point's name, cut where it is too long for a figure."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _label(parameters: Mapping[str, Any], share: float, data: Data) -> str:
    """The parameters that vary, and how often the point is on the front."""
    varying = {name: parameters[name] for name in data.parameters} or parameters
    text = shortened(point_label(varying))
    return text if share != share else f"{text} · {100 * share:.0f}%"
