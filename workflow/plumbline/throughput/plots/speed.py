"""Figures of speed: by batch and length, per gigabyte, and engine against engine."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plumbline.core.present.formatting import with_interval
from plumbline.core.present.plotting import GREY, LABEL_POINTS, MARKERS, PALETTE, message_figure
from plumbline.throughput.analysis.formatting import rate_text
from plumbline.throughput.analysis.records import GIGABYTE
from plumbline.throughput.plots.panels import (
    KEPT,
    Tables,
    by_variant,
    count_axis,
    disturbed_entry,
    errors,
    failed_row,
    failures_above,
    legend_below,
    log_axis,
    panels,
    points,
    rows_figure,
    shown,
    slice_title,
    slices,
    title_notes,
    variant_entries,
    without_panel,
)

AXES = {"batch": "Batch size", "generated": "Generated tokens of a row"}
RATE = "Tokens per second"
CELLS_AT_MOST = 8


def throughput_by_batch(tables: Tables) -> Figure:
    """Tokens per second against the batch size, a line per variant, a panel per engine and lengths."""
    return _lines(tables, "batch", "tokens_per_second", RATE)


def throughput_by_length(tables: Tables) -> Figure:
    """Tokens per second against the generated length, a line per variant, a panel per engine, batch and prompt."""
    return _lines(tables, "generated", "tokens_per_second", RATE)


def efficiency(tables: Tables) -> Figure:
    """Tokens per second per GB (10^9 bytes) of peak memory against the batch size, as `throughput_by_batch`."""
    return _lines(tables, "batch", "tokens_per_second_per_gigabyte", f"{RATE} per GB")


def engines(tables: Tables) -> Figure:
    """Tokens per second of each engine, for cells with more than one: points with intervals, rows by cell."""
    trials = tables.trials
    cells = trials.groupby(["variant", "batch", "prompt", "generated"], sort=False)
    compared = [group for _, group in cells if group["engine"].nunique() > 1]
    if not compared:
        return message_figure("No cell was measured with more than one engine.")
    compared, note = shown(compared, CELLS_AT_MOST)
    rows = sum(len(group) + 1 for group in compared)
    figure, axes = rows_figure(rows)
    names = sorted({engine for group in compared for engine in group["engine"]})
    looks = {
        name: {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]} for i, name in enumerate(names)
    }
    place, ticks, labels = 0, [], []
    for group in compared:
        head = group.iloc[0]
        title = f"{tables.labels[head['variant']]}, batch {head['batch']}, prompt {head['prompt']}"
        axes.annotate(
            f"{title}, generated {head['generated']}", (0, place), xycoords=axes.get_yaxis_transform(),
            xytext=(3, 0), textcoords="offset points", va="center_baseline", fontsize=7, weight="bold",
        )  # fmt: skip
        ordered = group.sort_values(["tokens_per_second", "engine"], ascending=[False, True], na_position="last")
        for number, (_, row) in enumerate(ordered.iterrows(), start=place + 1):
            ticks.append(number)
            labels.append(row["engine"])
            _engine_row(axes, number, row, tables.contrasts, looks[row["engine"]])
        place += len(group) + 1
    axes.set_yticks(ticks, labels)
    _rates_across(axes, pd.concat(compared))
    legend_below(figure, disturbed_entry(pd.concat(compared)))
    title_notes(figure, tables, note)
    return figure


def _engine_row(axes: Axes, place: int, row: pd.Series, contrasts: pd.DataFrame, look: dict[str, Any]) -> None:
    if row["outcome"] != "ok":
        failed_row(axes, place, row["outcome"])
        return
    one = row.to_frame().T
    look = look | {"ls": "", "ms": 5}
    points(axes, [row["tokens_per_second"]], [place], look, [row["disturbed"]], xerr=errors(one))
    mine = contrasts[(contrasts["kind"] == "engine") & (contrasts["trial"] == row["trial"])]
    text = rate_text(row)
    for _, ratio in mine.iterrows():
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
        below, above = errors(known)
        low, high = (rates - below).min(), (rates + above).max()
        room = max((high / low) ** 0.06, 1.15)
        axes.set_xlim(low / room, high * room)
        log_axis(axes, "x")
    else:
        axes.set_xticks([])


def _lines(tables: Tables, axis: str, name: str, label: str) -> Figure:
    """A panel per slice with a line per variant of the column `name` against `axis`, with error bars."""
    groups, note = shown(slices(tables.trials, axis))
    figure, axes = panels(len(groups))
    handles: list[Any] = []
    for panel, group in zip(axes, groups, strict=True):
        panel.set_title(slice_title(group, axis), fontsize=8, loc="left")
        _slice(panel, tables, group, axis, name)
    for panel, group in zip(axes, groups, strict=True):
        count_axis(panel, group[axis].to_numpy(), AXES[axis])
        found = failures_above(figure, panel, tables, group, axis)
        handles = handles or found
        if group[name].notna().any():
            log_axis(panel)
    with_speed = [group[name].notna().any() for group in groups]
    for number, panel in enumerate(axes):
        if with_speed[number] and (number % 2 == 0 or not with_speed[number - 1]):
            panel.set_ylabel(label)
    names = [variant for group in groups for variant in group["variant"]]
    handles = [*handles, *disturbed_entry(pd.concat(groups))]
    legend_below(figure, [*variant_entries(tables, names, lw=1.2), *handles], title=KEPT)
    title_notes(figure, tables, note, without_panel(tables, groups))
    return figure


def _slice(axes: Axes, tables: Tables, group: pd.DataFrame, axis: str, name: str) -> None:
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    good = group[(group["outcome"] == "ok") & group[name].notna()]
    if good.empty:
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        look: dict[str, Any] = {"color": GREY, "fontsize": LABEL_POINTS, "ha": "center", "va": "bottom"}
        axes.annotate("no trial gave a speed", (0.5, 0.05), xycoords="axes fraction", **look)
        return
    scale = 1.0 if name == "tokens_per_second" else GIGABYTE
    for variant, mine in by_variant(tables, good):
        mine = mine.sort_values(axis)
        factor = scale if scale == 1.0 else scale / mine["peak_bytes"].to_numpy(dtype=np.float64)
        points(axes, mine[axis], mine[name], tables.looks[variant], mine["disturbed"], yerr=errors(mine, scale=factor))
    scales = scale if scale == 1.0 else scale / good["peak_bytes"].to_numpy(dtype=np.float64)
    value = good[name].to_numpy(dtype=np.float64)
    below, above = errors(good, scale=scales)
    values = np.concatenate([value - below, value + above])
    room = max((values.max() / values.min()) ** 0.06, 1.06)
    axes.set_yscale("log")
    axes.set_ylim(values.min() / room, values.max() * room)
