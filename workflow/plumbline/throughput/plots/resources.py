"""Figures of what a trial uses: memory, its share of the machine's ceiling, and where its seconds go."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from plumbline.core.present.formatting import outcome_label
from plumbline.core.present.panels import DASHES, error_bars, legend_below, log_axis, notes_on_top, panels
from plumbline.core.present.plotting import FAULT, GREY, LABEL_POINTS, PALETTE, message_figure
from plumbline.throughput.plots.panels import (
    KEPT,
    failed_row,
    largest,
    points,
    row_label,
    rows_figure,
    slice_title,
    slices,
)
from plumbline.throughput.plots.results import Results

STACKED = {
    "weights": ("Weights", PALETTE[0]),
    "kv": ("KV cache", PALETTE[1]),
    "activations": ("Activations", PALETTE[5]),
}
"""Part of a trial's memory -> its legend entry and colour, from the bottom up."""
LIMITS = {"bandwidth": ("Memory bandwidth", PALETTE[0], "o"), "compute": ("Matmul rate", PALETTE[1], "s")}


def memory(results: Results) -> Figure:
    """Memory that a trial needs against batch size: a stacked bar per variant, a panel per engine and lengths."""
    groups, note = largest(slices(results.trials, "batch"))
    figure, axes = panels(len(groups), 2.9)
    values = pd.concat(groups)["needed_bytes"].max()
    size, unit = (1e9, "GB") if values >= 3e9 else (1e6, "MB")
    for panel, group in zip(axes, groups, strict=True):
        panel.set_title(slice_title(group, "batch"), fontsize=8, loc="left")
        _memory_bars(panel, results, group, size, small=len(groups) > 1)
        panel.set_xlabel(f"{KEPT}, by batch size")
    for panel in axes[:: min(len(axes), 2)]:
        panel.set_ylabel(f"Memory needed ({unit})")
    patches = [
        Line2D([], [], ls="", marker="s", ms=6, mew=0, color=colour, label=label) for label, colour in STACKED.values()
    ]
    legend_below(figure, patches, columns=4)
    notes_on_top(figure, results.machine_note, note)
    return figure


def ceiling(results: Results) -> Figure:
    """Share of its ceiling that each trial reaches, and which limit sets the ceiling."""
    trials = results.trials
    if trials["ceiling_share"].isna().all() and (trials["outcome"] == "ok").any():
        return message_figure("No trial has a ceiling: this machine's limits were not measured.")
    figure, axes = rows_figure(len(trials))
    seen: dict[str, None] = {}
    for place, (_, row) in enumerate(trials.iterrows()):
        if row["outcome"] != "ok":
            failed_row(axes, place, row["outcome"])
            continue
        if np.isnan(row["ceiling_share"]):
            continue
        _, colour, marker = LIMITS.get(row["binds"], (row["binds"], GREY, "D"))
        seen[row["binds"]] = None
        bars = error_bars(row.to_frame().T, "ceiling_share", scale=100)
        style: dict[str, Any] = {"color": colour, "marker": marker, "ls": ""}
        points(axes, [100 * row["ceiling_share"]], [place], style, xerr=bars)
        axes.plot([0.01, 100 * row["ceiling_share"]], [place, place], color=colour, lw=0.6, alpha=0.5, zorder=2)
    labels = [row_label(results, row) for _, row in trials.iterrows()]
    axes.set_yticks(range(len(trials)), labels, fontsize=LABEL_POINTS)
    ends = 100 * trials[["ceiling_share", "ceiling_share_low", "ceiling_share_high"]].to_numpy(dtype=np.float64)
    known = ends[ends > 0]
    if known.size:
        axes.set_xlim(known.min() / 1.5, 1.2 * max(100.0, known.max()))
        log_axis(axes, "x")
    else:
        axes.set_xticks([])
    handles: list[Any] = [
        Line2D([], [], ls="", marker=LIMITS[name][2], ms=4.5, mew=0, color=LIMITS[name][1], label=LIMITS[name][0])
        for name in seen
        if name in LIMITS
    ]
    handles.append(axes.axvline(100, color="black", ls=DASHES, lw=0.9, zorder=1, label="Ceiling"))
    axes.set_xlabel("Share of the ceiling reached (%)")
    legend_below(figure, handles, title="What sets the ceiling" if seen else None)
    notes_on_top(figure, results.machine_note)
    return figure


def phases(results: Results) -> Figure:
    """Time of one call, split into prefill (until the first token) and decode (the other tokens), a bar per trial."""
    trials = results.trials
    figure, axes = rows_figure(len(trials))
    prefill = 1e3 * trials["time_to_first_token_seconds"].to_numpy(dtype=np.float64)
    steps = trials["generated"].to_numpy(dtype=np.float64) - 1
    each = np.where(steps > 0, trials["time_per_output_token_seconds"].to_numpy(dtype=np.float64), 0.0)
    decode = 1e3 * each * steps
    total = prefill + decode
    for place, (_, row) in enumerate(trials.iterrows()):
        if row["outcome"] != "ok":
            failed_row(axes, place, row["outcome"])
        elif not np.isnan(total[place]):
            text = f"{_milliseconds(total[place])}, {100 * prefill[place] / total[place]:.0f}% prefill"
            axes.annotate(
                text, (total[place], place), xytext=(3, 0), textcoords="offset points", va="center_baseline",
                fontsize=LABEL_POINTS,
            )  # fmt: skip
    rows = np.arange(len(trials))
    known = ~np.isnan(total)
    handles: list[Any] = []
    for name, starts, lengths, colour in (
        ("Prefill, until the first token", np.zeros(len(trials)), prefill, PALETTE[1]),
        ("Decode, the other tokens", prefill, decode, PALETTE[0]),
    ):
        style: dict[str, Any] = {"color": colour, "height": 0.74, "lw": 0, "label": name}
        axes.barh(rows[known], lengths[known], left=starts[known], **style)
        handles.append(Patch(color=colour, lw=0, label=name))
    axes.set_yticks(rows, [row_label(results, row) for _, row in trials.iterrows()], fontsize=LABEL_POINTS)
    axes.set_xlim(0, 1.24 * total[known].max() if known.any() else 1.0)
    if not known.any():
        axes.set_xticks([])
    axes.set_xlabel("Time of one call (ms)")
    legend_below(figure, handles if known.any() else [])
    notes_on_top(figure, results.machine_note)
    return figure


def _memory_bars(axes: Axes, results: Results, group: pd.DataFrame, size: float, *, small: bool) -> None:
    names = [name for name in results.styles if name in set(group["variant"])]
    batches = sorted(group["batch"].unique())
    step = len(names) + 1
    places, labels = [], []
    highest = group["needed_bytes"].max() / size
    for number, batch in enumerate(batches):
        for index, name in enumerate(names):
            trial = group[(group["batch"] == batch) & (group["variant"] == name)]
            if trial.empty:
                continue
            place = number * step + index
            places.append(place)
            labels.append(results.labels[name].replace(" (base)", ""))
            _memory_bar(axes, place, trial.iloc[0], size)
        axes.annotate(
            f"batch {batch:,}", (number * step + (len(names) - 1) / 2, 1), xycoords=axes.get_xaxis_transform(),
            xytext=(0, -2), textcoords="offset points", ha="center", va="top", fontsize=7,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    points = LABEL_POINTS - (1.0 if small else 0.0)
    crowded = max((len(label) for label in labels), default=0) * len(labels) > (40 if small else 90)
    axes.set_xticks(places, labels, fontsize=points, rotation=90 if crowded else 0)
    middle, half = (len(batches) * step - 2) / 2, max(len(batches) * step, 8) / 2 - 0.2
    axes.set_xlim(middle - half, middle + half)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_ylim(0, 1.12 * highest if highest > 0 else 1.0)
    if not highest > 0:
        axes.set_yticks([])


def _memory_bar(axes: Axes, place: float, row: pd.Series, size: float) -> None:
    if row["outcome"] != "ok" or np.isnan(row["needed_bytes"]):
        text = outcome_label(row["outcome"]) if row["outcome"] != "ok" else "unknown"
        style: dict[str, Any] = {"color": FAULT, "fontsize": LABEL_POINTS, "ha": "center", "va": "bottom"}
        axes.annotate(
            f"× {text}", (place, 0), xytext=(0, 3), textcoords="offset points", rotation=90, **style,
        )  # fmt: skip
        return
    bottom = 0.0
    for name, (_, colour) in STACKED.items():
        value = row[f"{name}_bytes"]
        axes.bar(place, value / size, bottom=bottom / size, width=0.8, lw=0, color=colour)
        bottom += value


def _milliseconds(value: float) -> str:
    return f"{value / 1e3:,.3g} s" if value >= 1e4 else f"{value:,.3g} ms" if value < 1000 else f"{value:,.0f} ms"
