"""Curves: scaling with its ideal, ceiling and prediction; loss and BLEU by epoch; all-reduces and their model."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from plumbline.core.present.panels import DASHES, count_axis, legend_below, log_axis, panels, single_panel
from plumbline.core.present.plotting import GREY, MARKERS, PALETTE, message_figure
from plumbline.data_parallel.analysis.frames import learning_frame
from plumbline.data_parallel.analysis.network import HERE
from plumbline.data_parallel.plots.data import Data

TIME = "Training time (s)"


def scaling(data: Data) -> Figure:
    """Speed-up by the number of processes: measured with intervals, ideal, the hardware's ceiling, predicted."""
    several = [one for one in data.speedups if one.turns.world > 1]
    if not several:
        return message_figure("Nothing was compared: one world has no other to be compared with.")
    figure, axes = single_panel()
    worlds = sorted({1, *(one.turns.world for one in several)})
    handles: list[Any] = axes.plot(worlds, worlds, color=GREY, ls=DASHES, lw=0.9, label="Ideal")
    ceiling = {1: 1.0} | {one.turns.world: one.ratio.value for one in several if one.turns.scaling == "independent"}
    handles += axes.plot(list(ceiling), list(ceiling.values()), color="black", lw=1, label="Independent processes")
    kinds = dict.fromkeys((one.turns.method, one.turns.scaling) for one in several if one.turns.method)
    for number, (method, kind) in enumerate(kinds, start=1):  # in the other figures, the first colour is one process
        own = [one for one in several if (one.turns.method, one.turns.scaling) == (method, kind)]
        places = [one.turns.world * 1.02 ** (number - 1 - len(kinds) / 2) for one in own]  # side by side
        values = np.array([one.ratio.value for one in own])
        ends = np.array([[one.ratio.low for one in own], [one.ratio.high for one in own]])
        lengths = np.abs(ends - values)
        handles.append(
            axes.errorbar(
                places,
                values,
                yerr=lengths,
                ls="",
                marker=MARKERS[number % len(MARKERS)],
                color=PALETTE[number % len(PALETTE)],
                capsize=3,
                lw=1,
                label=f"{method}, {kind}",
            )
        )
    here = [one for one in data.predictions if one.network == HERE and not one.is_fitted]
    for kind, marker in (("strong", "_"), ("weak", "x")):
        points = [(one.world, one.speedup) for one in here if one.scaling == kind]
        if points:
            handles += axes.plot(
                *zip(*points, strict=True), ls="", marker=marker, ms=9, color=GREY, label=f"Predicted, {kind}"
            )
    count_axis(axes, worlds, "Processes")
    axes.set_ylabel("Tokens per second over one process")
    legend_below(figure, handles, columns=4)
    return figure


def learning(data: Data) -> Figure:
    """Validation loss and BLEU, above by epoch and below by the seconds of training, a line a trial."""
    if data.epochs.empty:
        return message_figure("No trial has a result.")
    learned = learning_frame(data.epochs)
    copied = next(record.translations["validation"].copied_bleu for record in data.records if record.translations)
    figure, axes = panels(4)
    handles: list[Any] = []
    for (loss, bleu), times, title in ((axes[:2], learned["epoch"] + 1, "Epoch"), (axes[2:], learned["seconds"], TIME)):
        handles = []
        for number, (name, own) in enumerate(learned.groupby("label", sort=False)):
            style: Any = {"color": PALETTE[number % len(PALETTE)], "marker": MARKERS[number % len(MARKERS)]}
            handles += loss.plot(times[own.index], own["validation_loss"], label=name, **style)
            bleu.plot(times[own.index], own["bleu"], **style)
        handles.append(bleu.axhline(copied, color=GREY, ls=DASHES, lw=0.9, label="Copying the source"))
        loss.set_ylabel("Validation loss (nats per token)")
        bleu.set_ylabel("BLEU")
        for each in (loss, bleu):
            each.set_xlabel(title)
            each.grid(axis="y")
    for each in axes[:2]:
        each.set_xticks(sorted(set(learned["epoch"] + 1)))
    legend_below(figure, handles, columns=4)
    return figure


def all_reduce(data: Data) -> Figure:
    """Seconds of an all-reduce by its size: medians and quartiles, and the α–β model fitted to them."""
    if data.network is None:
        return message_figure("No all-reduce was measured: there is only one process.")
    figure, axes = single_panel()
    handles: list[Any] = []
    for number, world in enumerate(sorted({one.world for one in data.comparison.all_reduces})):
        own = [one for one in data.comparison.all_reduces if one.world == world]
        sizes = np.array([one.bytes for one in own])
        low, middle, high = np.array([np.percentile(one.seconds, (25, 50, 75)) for one in own]).T * 1e6
        colour = PALETTE[number % len(PALETTE)]
        bars = [middle - low, high - middle]
        handles.append(axes.errorbar(sizes, middle, yerr=bars, ls="", marker="o", color=colour, label=f"{world} ranks"))
        model = [1e6 * data.network.all_reduce_seconds(size, world) for size in sizes]
        handles += axes.plot(sizes, model, color=colour, lw=0.9, ls=DASHES, label=f"α–β model, {world} ranks")
    log_axis(axes, "x")
    log_axis(axes)
    axes.set_xlabel("Size (bytes)")
    axes.set_ylabel("Time of an all-reduce (µs)")
    legend_below(figure, handles, columns=4)
    return figure
