"""Figures of time: how fast the trials trained, and where their time went."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from plumbline.core.measure.spans import SPANS
from plumbline.core.present.panels import DASHES, legend_below, notes_on_top, single_panel
from plumbline.core.present.plotting import GREY, MARKERS, PALETTE, WIDTH, message_figure
from plumbline.lr_sweep.analysis.findings import rate_text
from plumbline.lr_sweep.analysis.frames import overall_speed
from plumbline.lr_sweep.plots.panels import SweepData

SPAN_LABELS = {name: name.replace("_", " ").capitalize() for name in SPANS}
SPAN_COLOURS = dict(zip(SPANS, (*PALETTE, "#777777", "#BBBBBB"), strict=True))


def throughput(data: SweepData) -> Figure:
    """Tokens per second of every trial by rate, seeds side by side; the line is the speed over all trials."""
    known = data.trials[data.trials["tokens_per_second"] > 0]
    if known.empty:
        return message_figure("No trial recorded a speed.")
    figure, axes = single_panel(2.8)
    rates, seeds = sorted(known["rate"].unique()), sorted(known["seed"].unique())
    handles: list[Any] = []
    for number, seed in enumerate(seeds):
        group = known[known["seed"] == seed]
        shift = (number - (len(seeds) - 1) / 2) * min(0.16, 0.6 / len(seeds))
        places = np.array([rates.index(rate) for rate in group["rate"]]) + shift
        style: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "color": PALETTE[number % len(PALETTE)]}
        style |= {"ls": "", "ms": 5, "mew": 0.4, "mec": "white", "label": f"Seed {seed}"}
        handles += axes.plot(places, group["tokens_per_second"], **style, zorder=3)
    overall = overall_speed(known)
    label = f"All trials: {overall:,.0f} tokens per second"
    handles.append(axes.axhline(overall, color=GREY, ls=DASHES, lw=0.9, zorder=1, label=label))
    axes.set_xticks(range(len(rates)), [rate_text(rate) for rate in rates], rotation=90 if len(rates) > 14 else 0)
    axes.set_xlim(-0.6, len(rates) - 0.4)
    axes.set_ylim(0, 1.1 * known["tokens_per_second"].max())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("Learning rate (peak)")
    axes.set_ylabel("Tokens per second (training steps)")
    legend_below(figure, handles, columns=5)
    notes_on_top(figure, data.machine_note)
    return figure


def time_spent(data: SweepData) -> Figure:
    """Where the seconds of each trial went: a stacked bar per trial with its total.

    Work that a kill undid is left out, and so is everything before the loop; a resumed trial is marked.
    """
    columns = [f"{name}_seconds" for name in SPANS]
    trials = data.trials[data.trials[columns].notna().any(axis=1)]
    if trials.empty:
        return message_figure("No trial recorded where its time went.")
    figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.17 * max(len(trials), 2)))
    rows = np.arange(len(trials))
    seconds = np.nan_to_num(trials[columns].to_numpy(dtype=np.float64))
    starts = np.cumsum(seconds, axis=1) - seconds
    handles: list[Any] = []
    for index, name in enumerate(SPANS):
        share = 100 * seconds[:, index].sum() / max(seconds.sum(), 1e-12)
        style: dict[str, Any] = {"color": SPAN_COLOURS[name], "height": 0.74, "lw": 0}
        label = f"{SPAN_LABELS[name]} ({share:.1f}%)"
        handles.append(axes.barh(rows, seconds[:, index], left=starts[:, index], label=label, **style))
    total = seconds.sum(axis=1)
    for row, value in zip(rows, total, strict=True):
        text = f"{value:,.0f} s" if value >= 100 else f"{value:.2f} s"
        place: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "va": "center_baseline"}
        axes.annotate(text, (value, row), **place, fontsize=6.5)
    names = [
        name + (f" (resumed {restarts} ×)" if restarts else "")
        for name, restarts in zip(trials["trial"], trials["restarts"].fillna(0).astype(int), strict=True)
    ]
    axes.set_yticks(rows, names, fontsize=6.5)
    axes.set_ylim(len(trials) - 0.4, -0.6)
    axes.set_xlim(0, 1.1 * max(total.max(), 1e-9))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("Seconds in the training loop")
    legend_below(figure, handles, columns=4)
    notes_on_top(figure, data.machine_note)
    return figure
