"""Figures of the workloads of captured graphs, a panel each, and of all baselines in all workloads."""

from collections.abc import Callable, Sequence
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.core.measure.interleave import CONTROL
from plumbline.core.present.panels import DASHES, legend_below, log_axis, panels, single_panel
from plumbline.core.present.plotting import GREY, MARKERS, PALETTE, WIDTH, message_figure
from plumbline.core.statistics.rates import Ratio
from plumbline.disaggregation.analysis.heat_map import Square
from plumbline.disaggregation.analysis.workloads import Speedup, WorkloadCell
from plumbline.disaggregation.settings import FULL

EMPTY = "No workload of captured graphs has a result."
OFFSET = 0.18
FIRST = 3
"""Of the colours and markers of links: those before it are contexts in the figures of decoding."""


def workload_times(cells: Sequence[WorkloadCell]) -> Figure:
    """Time of a call over that of local, with its interval, by variant."""
    cells = [one for one in cells if one.name != CONTROL]
    figure = _by_variant(cells, "Time ÷ local", lambda one: one.against_local)
    for panel in figure.axes if cells else ():
        panel.axhline(1.0, color=GREY, linestyle=DASHES, linewidth=0.8)
    return figure


def workload_traffic(cells: Sequence[WorkloadCell]) -> Figure:
    """Bytes of a call both ways, by variant that sends something; a gap where nothing can count them."""

    def size(one: WorkloadCell) -> Ratio:
        return Ratio(value=float("nan" if one.bytes is None else one.bytes), low=float("nan"), high=float("nan"))

    return _by_variant([one for one in cells if one.round_trips], "Bytes per call", size)


def speedup(gains: Sequence[Speedup]) -> Figure:
    """How many times as fast two workers are as one, with the interval, beside the bound that two at once allow."""
    if not gains:
        return message_figure(EMPTY)
    figure, axes = single_panel()
    links, workloads = _distinct([one.link for one in gains]), _distinct([one.workload for one in gains])
    for one in gains:
        number = links.index(one.link)
        place = workloads.index(one.workload) + OFFSET * (number - (len(links) - 1) / 2)
        _point(axes, place, one.speedup, number)
        bound = one.speedup.value / one.of_bound.value
        axes.hlines(bound, place - 0.4 * OFFSET, place + 0.4 * OFFSET, color=GREY, linewidth=1.5)
    axes.axhline(1.0, color=GREY, linestyle=DASHES, linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("Speed of full ÷ one worker\n(CNN: same micro-batches)")
    axes.set_xticks(range(len(workloads)), [name.replace("_", " ") for name in workloads])
    bar = Line2D([], [], color=GREY, linewidth=1.5, label="bound, scaled by what two processes achieve at once")
    legend_below(figure, [*_handles(links), bar])
    return figure


def heat_map(found: Sequence[Square]) -> Figure:
    """Time over local of each baseline in each workload: a panel a link, grey where there is none."""
    if not found:
        return message_figure("No block has a result.")
    links, names = _distinct([one.link for one in found]), _distinct([one.baseline for one in found])
    rows = {link: _distinct([one.row for one in found if one.link == link]) for link in links}
    heights = [len(rows[link]) for link in links]
    figure, axes = plt.subplots(
        len(links), 1, figsize=(WIDTH, 0.3 * sum(heights) + 0.9 * len(links)), height_ratios=heights, squeeze=False
    )
    measured = [abs(np.log(one.ratio.value)) for one in found if one.ratio is not None]
    colors = plt.get_cmap("RdBu_r").with_extremes(bad="0.85")
    for panel, link in zip(axes.flat, links, strict=True):
        own = {(one.row, one.baseline): one for one in found if one.link == link}
        ratios = [[own[row, name].ratio for name in names] for row in rows[link]]
        values = [[np.nan if one is None else np.log(one.value) for one in row] for row in ratios]
        most = max(measured, default=1.0)
        panel.imshow(values, cmap=colors, norm=Normalize(-most, most), aspect="auto")
        for (place, row), (column, name) in product(enumerate(rows[link]), enumerate(names)):
            one = own[row, name]
            text = one.missing if one.ratio is None else f"{one.ratio.value:.2f}"
            is_dark = one.ratio is not None and abs(np.log(one.ratio.value)) > 0.6 * most
            size = 5.5 if one.ratio is None else 7.5
            panel.text(column, place, text, ha="center", va="center", fontsize=size, color="w" if is_dark else "k")
        panel.set_yticks(range(len(rows[link])), [row.replace("_", " ") for row in rows[link]])
        panel.set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
        panel.set_title(f"{link}: time ÷ local")
    return figure


def _by_variant(cells: Sequence[WorkloadCell], label: str, value: Callable[[WorkloadCell], Ratio]) -> Figure:
    if not cells:
        return message_figure(EMPTY)
    links, workloads = _distinct([one.link for one in cells]), _distinct([one.workload for one in cells])
    figure, axes = panels(len(workloads), height=3.0, columns=3)
    axes[0].set_ylabel(label)
    for panel, workload in zip(axes, workloads, strict=True):
        own = [one for one in cells if one.workload == workload]
        names = _distinct([FULL, *(one.name for one in own)])
        for one in own:
            number = links.index(one.link)
            place = names.index(one.name) + OFFSET * (number - (len(links) - 1) / 2)
            _point(panel, place, value(one), number)
        log_axis(panel)
        panel.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=45, ha="right")
        panel.set_xlim(-0.5, len(names) - 0.5)
        panel.grid(axis="y")
        panel.set_title(workload.replace("_", " "))
    legend_below(figure, _handles(links))
    return figure


def _point(axes: Axes, place: float, ratio: Ratio, number: int) -> None:
    lengths = np.nan_to_num(np.abs([[ratio.value - ratio.low], [ratio.high - ratio.value]]))
    marker, color = _style(number)
    axes.errorbar([place], [ratio.value], yerr=lengths, fmt=marker, color=color, capsize=2)


def _style(number: int) -> tuple[str, str]:
    """Marker and colour of a link."""
    return MARKERS[(FIRST + number) % len(MARKERS)], PALETTE[(FIRST + number) % len(PALETTE)]


def _handles(links: Sequence[str]) -> list[Line2D]:
    styles = [_style(number) for number in range(len(links))]
    return [
        Line2D([], [], marker=marker, color=color, linestyle="", label=link)
        for link, (marker, color) in zip(links, styles, strict=True)
    ]


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
