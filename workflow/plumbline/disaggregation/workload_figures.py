"""Figures of the workloads of captured graphs: a panel each, a colour a link."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.core.present.panels import DASHES, legend_below, log_axis, panels, single_panel
from plumbline.core.present.plotting import GREY, MARKERS, PALETTE, message_figure
from plumbline.core.statistics.rates import Ratio
from plumbline.disaggregation.settings import FULL
from plumbline.disaggregation.workload_analysis import Speedup, WorkloadCell

EMPTY = "No workload of captured graphs has a result."
OFFSET = 0.18


def workload_times(cells: Sequence[WorkloadCell]) -> Figure:
    """Time of a call over that of local, with its interval, by variant."""
    remote = [one for one in cells if one.bytes is not None]
    return _by_variant(remote, "Time ÷ local", lambda one: one.against_local)


def workload_traffic(cells: Sequence[WorkloadCell]) -> Figure:
    """Bytes of a call between client and workers, by variant."""

    def size(one: WorkloadCell) -> Ratio:
        return Ratio(value=float(one.bytes or 0), low=float("nan"), high=float("nan"))

    return _by_variant([one for one in cells if one.bytes is not None], "Bytes per call", size)


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
        axes.hlines(bound, place - OFFSET / 2, place + OFFSET / 2, color=GREY, linewidth=1.5)
    axes.axhline(1.0, color=GREY, linestyle=DASHES, linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("Speed of full ÷ one worker\n(CNN: same micro-batches)")
    axes.set_xticks(range(len(workloads)), [name.replace("_", " ") for name in workloads])
    bar = Line2D([], [], color=GREY, linewidth=1.5, label="bound, times what two at once give")
    legend_below(figure, [*_handles(links), bar])
    return figure


def _by_variant(cells: Sequence[WorkloadCell], label: str, value: Callable[[WorkloadCell], Ratio]) -> Figure:
    if not cells:
        return message_figure(EMPTY)
    links, workloads = _distinct([one.link for one in cells]), _distinct([one.workload for one in cells])
    figure, axes = panels(len(workloads), height=3.0)
    for panel, workload in zip(axes, workloads, strict=True):
        own = [one for one in cells if one.workload == workload]
        names = _distinct([FULL, *(one.name for one in own)])
        for one in own:
            number = links.index(one.link)
            place = names.index(one.name) + OFFSET * (number - (len(links) - 1) / 2)
            _point(panel, place, value(one), number)
        panel.set_ylabel(label)
        log_axis(panel)
        panel.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=35, ha="right")
        panel.grid(axis="y")
        panel.set_title(workload.replace("_", " "))
    legend_below(figure, _handles(links))
    return figure


def _point(axes: Axes, place: float, ratio: Ratio, number: int) -> None:
    lengths = np.nan_to_num(np.abs([[ratio.value - ratio.low], [ratio.high - ratio.value]]))
    marker, color = MARKERS[number % len(MARKERS)], PALETTE[number % len(PALETTE)]
    axes.errorbar([place], [ratio.value], yerr=lengths, fmt=marker, color=color, capsize=2)


def _handles(links: Sequence[str]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            marker=MARKERS[number % len(MARKERS)],
            color=PALETTE[number % len(PALETTE)],
            linestyle="",
            label=link,
        )
        for number, link in enumerate(links)
    ]


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
