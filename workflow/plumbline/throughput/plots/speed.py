"""Figures of speed: by batch size and length, per gigabyte, and engine against engine."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plumbline.core.present.formatting import with_interval
from plumbline.core.present.panels import count_axis, error_bars, legend_below, log_axis, notes_on_top, panels
from plumbline.core.present.plotting import GREY, LABEL_POINTS, MARKERS, PALETTE, message_figure
from plumbline.throughput.analysis.formatting import rate_text
from plumbline.throughput.analysis.records import GIGABYTE
from plumbline.throughput.plots.panels import (
    KEPT,
    by_variant,
    failed_row,
    failures_above,
    largest,
    noisy_entry,
    points,
    rows_figure,
    slice_title,
    slices,
    variant_entries,
    without_panel,
)
from plumbline.throughput.plots.results import Results

AXES = {"batch": "Batch size", "generated": "Generated tokens per row"}
RATE = "Tokens per second"
CELLS_AT_MOST = 8


def throughput_by_batch(results: Results) -> Figure:
    """Tokens per second against batch size, a line per variant, a panel per engine and lengths."""
    return _lines(results, "batch", "tokens_per_second", RATE)


def throughput_by_length(results: Results) -> Figure:
    """Tokens per second against generated length, a line per variant, a panel per engine, batch and prompt."""
    return _lines(results, "generated", "tokens_per_second", RATE)


def efficiency(results: Results) -> Figure:
    """Tokens per second per GB (10^9 bytes) of peak memory against batch size, laid out as `throughput_by_batch`."""
    return _lines(results, "batch", "tokens_per_second_per_gigabyte", f"{RATE} per GB")


def engines(results: Results) -> Figure:
    """Tokens per second of each engine, in cells with more than one: points with intervals, a row per engine."""
    trials = results.trials
    cells = trials.groupby(["variant", "batch", "prompt", "generated"], sort=False)
    compared = [group for _, group in cells if group["engine"].nunique() > 1]
    if not compared:
        return message_figure("No cell was measured with more than one engine.")
    compared, note = largest(compared, CELLS_AT_MOST)
    rows = sum(len(group) + 1 for group in compared)
    figure, axes = rows_figure(rows)
    names = sorted({engine for group in compared for engine in group["engine"]})
    styles = {
        name: {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]} for i, name in enumerate(names)
    }
    place, ticks, labels = 0, [], []
    for group in compared:
        head = group.iloc[0]
        title = f"{results.labels[head['variant']]}, batch {head['batch']}, prompt {head['prompt']}"
        axes.annotate(
            f"{title}, generated {head['generated']}", (0, place), xycoords=axes.get_yaxis_transform(),
            xytext=(3, 0), textcoords="offset points", va="center_baseline", fontsize=7, weight="bold",
        )  # fmt: skip
        ordered = group.sort_values(["tokens_per_second", "engine"], ascending=[False, True], na_position="last")
        for number, (_, row) in enumerate(ordered.iterrows(), start=place + 1):
            ticks.append(number)
            labels.append(row["engine"])
            _engine_row(axes, number, row, results.contrasts, styles[row["engine"]])
        place += len(group) + 1
    axes.set_yticks(ticks, labels)
    _rates_across(axes, pd.concat(compared))
    legend_below(figure, noisy_entry(pd.concat(compared)))
    notes_on_top(figure, results.machine_note, note)
    return figure


def _engine_row(axes: Axes, place: int, row: pd.Series, contrasts: pd.DataFrame, style: dict[str, Any]) -> None:
    if row["outcome"] != "ok":
        failed_row(axes, place, row["outcome"])
        return
    one = row.to_frame().T
    style = style | {"ls": "", "ms": 5}
    points(axes, [row["tokens_per_second"]], [place], style, [row["noisy"]], xerr=error_bars(one, "tokens_per_second"))
    ratios = contrasts[(contrasts["kind"] == "engine") & (contrasts["trial"] == row["trial"])]
    text = rate_text(row)
    for _, ratio in ratios.iterrows():
        times = with_interval(ratio["ratio"], ratio["ratio_low"], ratio["ratio_high"], digits=2)
        text += f";  {times} × {ratio['baseline_engine']}"
    axes.annotate(
        text, (1, place), xycoords=axes.get_yaxis_transform(), xytext=(6, 0), textcoords="offset points",
        va="center_baseline", fontsize=LABEL_POINTS,
    )  # fmt: skip


def _rates_across(axes: Axes, trials: pd.DataFrame) -> None:
    known = trials[trials["tokens_per_second"].notna()]
    axes.set_xlabel(RATE)
    if len(known):
        rates = known["tokens_per_second"].to_numpy(dtype=np.float64)
        below, above = error_bars(known, "tokens_per_second")
        low, high = (rates - below).min(), (rates + above).max()
        room = max((high / low) ** 0.06, 1.15)
        axes.set_xlim(low / room, high * room)
        log_axis(axes, "x")
    else:
        axes.set_xticks([])


def _lines(results: Results, axis: str, name: str, label: str) -> Figure:
    """A panel per slice: column `name` against `axis`, a line per variant, with error bars."""
    groups, note = largest(slices(results.trials, axis))
    figure, axes = panels(len(groups))
    handles: list[Any] = []
    for panel, group in zip(axes, groups, strict=True):
        panel.set_title(slice_title(group, axis), fontsize=8, loc="left")
        _slice(panel, results, group, axis, name)
    for panel, group in zip(axes, groups, strict=True):
        count_axis(panel, group[axis].to_numpy(), AXES[axis])
        found = failures_above(figure, panel, results, group, axis)
        handles = handles or found
        if group[name].notna().any():
            log_axis(panel)
    with_speed = [group[name].notna().any() for group in groups]
    for number, panel in enumerate(axes):
        if with_speed[number] and (number % 2 == 0 or not with_speed[number - 1]):
            panel.set_ylabel(label)
    names = [variant for group in groups for variant in group["variant"]]
    handles = [*handles, *noisy_entry(pd.concat(groups))]
    legend_below(figure, [*variant_entries(results, names, lw=1.2), *handles], title=KEPT)
    notes_on_top(figure, results.machine_note, note, without_panel(results, groups))
    return figure


def _slice(axes: Axes, results: Results, group: pd.DataFrame, axis: str, name: str) -> None:
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    good = group[(group["outcome"] == "ok") & group[name].notna()]
    if good.empty:
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        style: dict[str, Any] = {"color": GREY, "fontsize": LABEL_POINTS, "ha": "center", "va": "bottom"}
        axes.annotate("no trial succeeded", (0.5, 0.05), xycoords="axes fraction", **style)
        return
    scale = 1.0 if name == "tokens_per_second" else GIGABYTE
    for variant, trials in by_variant(results, good):
        trials = trials.sort_values(axis)
        factor = scale if scale == 1.0 else scale / trials["peak_bytes"].to_numpy(dtype=np.float64)
        bars = error_bars(trials, "tokens_per_second", factor)
        points(axes, trials[axis], trials[name], results.styles[variant], trials["noisy"], yerr=bars)
    scales = scale if scale == 1.0 else scale / good["peak_bytes"].to_numpy(dtype=np.float64)
    value = good[name].to_numpy(dtype=np.float64)
    below, above = error_bars(good, "tokens_per_second", scales)
    values = np.concatenate([value - below, value + above])
    room = max((values.max() / values.min()) ** 0.06, 1.06)
    axes.set_yscale("log")
    axes.set_ylim(values.min() / room, values.max() * room)
