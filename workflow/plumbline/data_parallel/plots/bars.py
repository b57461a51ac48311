"""Bars: training time, tokens per second, and where the time of a step goes."""

import numpy as np
from matplotlib.figure import Figure

from plumbline.core.present.panels import legend_below, notes_on_top, single_panel
from plumbline.core.present.plotting import LABEL_POINTS, PALETTE, message_figure
from plumbline.data_parallel.plots.data import Data

NOTHING = "No trial has a result."
SPENT = ("data", "forward", "backward", "communication", "optimizer", "control")


def training_time_comparison(data: Data) -> Figure:
    """Seconds of an epoch: mean over ranks, then over epochs without the first, with the deviation over epochs."""
    return _bars(data, "training_time", "Training time per epoch (s)", digits=2)


def tokens_per_second_comparison(data: Data) -> Figure:
    """Tokens per second summed over ranks, mean and deviation over epochs without the first."""
    return _bars(data, "tokens_per_second", "Tokens per second, all ranks", digits=0)


def _bars(data: Data, name: str, title: str, *, digits: int) -> Figure:
    if data.epochs.empty:
        return message_figure(NOTHING)
    trials = data.trials[data.trials["outcome"] == "ok"]
    figure, axes = single_panel()
    places = np.arange(len(trials))
    colours = [
        PALETTE[int(world > 1) + int(scaling == "weak")]
        for world, scaling in zip(trials["world"], trials["scaling"], strict=True)
    ]
    means, spread = trials[f"{name}_mean"], trials[f"{name}_deviation"].fillna(0)
    axes.bar(places, means, yerr=spread, color=colours, width=0.6, capsize=3, error_kw={"lw": 0.8})
    for place, mean, more in zip(places, means, spread, strict=True):
        axes.annotate(
            f"{mean:,.{digits}f}",
            (place, mean + more),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=LABEL_POINTS,
        )
    axes.set_xticks(places, list(trials["label"]))
    axes.set_ylabel(title)
    notes_on_top(figure, data.machine_note)
    return figure


def time_spent(data: Data) -> Figure:
    """Milliseconds of a step by what they went to, for each rank, over the epochs without the first."""
    if data.epochs.empty:
        return message_figure(NOTHING)
    epochs = data.epochs[(data.epochs["epoch"] > 0) | (data.epochs["epoch"].max() == 0)]
    sums = epochs.groupby(["world", "label", "rank"], sort=True).sum(numeric_only=True).reset_index()
    figure, axes = single_panel()
    places, left = np.arange(len(sums)), np.zeros(len(sums))
    handles = []
    for colour, part in zip(PALETTE, SPENT, strict=False):
        seconds = sums[f"{part}_seconds"]
        if part == "backward":  # the rest of it is drawn as communication, where that is more than the noise
            seconds = seconds - sums["communication_seconds"].clip(lower=0)
        milliseconds = 1e3 * seconds.clip(lower=0).to_numpy() / sums["steps"].to_numpy()
        handles.append(axes.barh(places, milliseconds, left=left, color=colour, label=part.capitalize(), height=0.65))
        left = left + milliseconds
    names = [f"{row['label']}: rank {row['rank']}" for _, row in sums.iterrows()]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Milliseconds per step")
    legend_below(figure, handles)
    lost = [name for name, seconds in zip(names, sums["communication_seconds"], strict=True) if seconds < 0]
    below = f"Communication is below the noise: {'; '.join(lost)}." if lost else ""
    notes_on_top(figure, below, data.machine_note)
    return figure
