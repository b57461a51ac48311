"""Figures of speed: by batch size and length, per gigabyte, and engine against engine."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plumbline.core.present.panels import DASHES, count_axis, error_bars, legend_below, log_axis, notes_on_top, panels
from plumbline.core.present.plotting import GREY, LABEL_POINTS, MARKERS, PALETTE, message_figure
from plumbline.throughput.analysis.formatting import ratio_text
from plumbline.throughput.analysis.records import GIGABYTE
from plumbline.throughput.plots.panels import (
    KEPT,
    PANELS_AT_MOST,
    by_variant,
    failed_row,
    failures_above,
    largest,
    points,
    rows_figure,
    slice_title,
    slices,
    variant_entries,
    without_panel,
)
from plumbline.throughput.plots.results import Results
from plumbline.throughput.record import ComparisonRecord
from plumbline.throughput.settings import BASE

AXES = {"batch": "Batch size", "generated": "Generated tokens per row"}
RATE = "Tokens per second"
CELLS_AT_MOST = 8


def throughput_by_batch(results: Results) -> Figure:
    """Tokens per second against batch size, a line per variant, a panel per engine and lengths; ratios to the base.

    The last panel shows what the comparisons say: how many times as fast as the base each variant is.
    """
    return _lines(results, "batch", "tokens_per_second", RATE)


def throughput_by_length(results: Results) -> Figure:
    """Tokens per second against generated length, a line per variant, a panel per engine, batch and prompt."""
    return _lines(results, "generated", "tokens_per_second", RATE)


def efficiency(results: Results) -> Figure:
    """Tokens per second per GB (10^9 bytes) of memory needed against batch size, laid out as `throughput_by_batch`."""
    return _lines(results, "batch", "tokens_per_second_per_gigabyte", f"{RATE} per GB")


def engines(results: Results) -> Figure:
    """How many times as fast as the baseline each engine is, a row per engine, by the comparisons of engines."""
    compared = [record for record in results.comparisons if record.question == "engines"]
    if not compared:
        return message_figure("No cell was measured with more than one engine.")
    compared, left = compared[:CELLS_AT_MOST], len(compared) - CELLS_AT_MOST
    groups = [_engine_rows(record, results.speedups) for record in compared]
    figure, axes = rows_figure(sum(len(rows) + 1 for rows in groups))
    place, ticks, labels = 0, [], []
    for record, rows in zip(compared, groups, strict=True):
        title = f"{results.labels[BASE]}, batch {record.batch}, prompt {record.prompt}, generated {record.generated}"
        axes.annotate(
            f"{title}{_control_text(rows)}", (0, place), xycoords=axes.get_yaxis_transform(), xytext=(3, 0),
            textcoords="offset points", va="center_baseline", fontsize=7, weight="bold", zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
        for number, (_, row) in enumerate(rows.iterrows(), start=place + 1):
            ticks.append(number)
            labels.append(row["candidate"])
            _engine_row(axes, number, row)
        place += len(rows) + 1
    axes.set_yticks(ticks, labels)
    _ratios_across(axes, pd.concat(groups))
    note = f"Not drawn: {left} more like these." if left > 0 else ""
    notes_on_top(figure, results.machine_note, note)
    return figure


def _engine_rows(record: ComparisonRecord, speedups: pd.DataFrame) -> pd.DataFrame:
    """The candidates of a comparison by falling ratio, its baseline at 1; those without a speed below."""
    rows = speedups[speedups["comparison"] == record.trial].sort_values("ratio", ascending=False)
    lost = pd.DataFrame([{"candidate": each.name, "outcome": each.outcome.value} for each in record.left_out])
    if rows.empty:
        outcome = "" if record.ok else record.outcome.value
        return pd.concat([pd.DataFrame([{"candidate": record.baseline, "outcome": outcome, "ratio": np.nan}]), lost])
    base: dict[str, Any] = {"candidate": record.baseline, "baseline": record.baseline}
    base |= {"ratio": 1.0, "ratio_low": np.nan, "ratio_high": np.nan}
    base |= {name: rows[name].iloc[0] for name in ("control", "control_low", "control_high")}
    rows = pd.concat([rows, pd.DataFrame([base])]).sort_values("ratio", ascending=False, kind="stable")
    return pd.concat([rows, lost])


def _control_text(rows: pd.DataFrame) -> str:
    """`; A/A 1.00 [0.99, 1.01]`: the baseline against itself."""
    if "control" not in rows or rows["control"].isna().all():
        return ""
    first = rows[rows["control"].notna()].iloc[0]
    return f"; A/A {ratio_text(first, 'control')}"


def _engine_row(axes: Axes, place: int, row: pd.Series) -> None:
    if np.isnan(row["ratio"]):
        failed_row(axes, place, row["outcome"] or "not compared")
        return
    base = row["candidate"] == row["baseline"]
    style = {"color": GREY if base else PALETTE[0], "marker": MARKERS[0], "ls": "", "ms": 5}
    points(axes, [row["ratio"]], [place], style, xerr=error_bars(row.to_frame().T, "ratio"))
    text = "1 (the others are relative to it)" if base else f"{ratio_text(row)}  {row['verdict']}"
    axes.annotate(
        text, (1, place), xycoords=axes.get_yaxis_transform(), xytext=(6, 0), textcoords="offset points",
        va="center_baseline", fontsize=LABEL_POINTS,
    )  # fmt: skip


def _ratios_across(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_xlabel("Speed relative to the baseline")
    known = rows[rows["ratio"].notna()]
    if known.empty:
        axes.set_xticks([])
        return
    ends = known[["ratio", "ratio_low", "ratio_high"]].to_numpy(dtype=np.float64)
    low, high = np.nanmin(ends), np.nanmax(ends)
    room = max((high / low) ** 0.06, 1.15)
    axes.set_xlim(low / room, high * room)
    log_axis(axes, "x")
    axes.axvline(1, color=GREY, ls=DASHES, lw=0.8, zorder=1)


def _lines(results: Results, axis: str, name: str, label: str) -> Figure:
    """A panel per slice: column `name` against `axis`, a line per variant, with error bars."""
    groups, note = largest(slices(results.trials, axis))
    ratios = _relative(results, name) if axis == "batch" else []
    if len(ratios) > PANELS_AT_MOST:
        note += f" Left out: {len(ratios) - PANELS_AT_MOST} comparisons; speedups.csv has them all."
        ratios = ratios[:PANELS_AT_MOST]
    figure, axes = panels(len(groups) + len(ratios))
    axes, last = axes[: len(groups)], axes[len(groups) :]
    for panel, (title, rows) in zip(last, ratios, strict=True):
        _ratios_by_batch(panel, results, rows, title)
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
    legend_below(figure, [*variant_entries(results, names, lw=1.2), *handles], title=KEPT)
    notes_on_top(figure, results.machine_note, note, without_panel(results, groups))
    return figure


def _relative(results: Results, name: str) -> list[tuple[str, pd.DataFrame]]:
    """For each engine and lengths with comparisons of variants: a title, and their ratios to the base at each batch.

    Per gigabyte, a ratio is divided by that of the memory needed, which is counted and has no interval.
    """
    rows = results.speedups[results.speedups["question"] == "variants"].copy()
    if name != "tokens_per_second" and len(rows):
        needed = results.trials.set_index("trial")["needed_bytes"]
        of_base = [needed.get(f"{BASE}/{trial.partition('/')[2]}", np.nan) for trial in rows["trial"]]
        factor = np.array(of_base) / np.array([needed.get(trial, np.nan) for trial in rows["trial"]])
        for column in ("ratio", "ratio_low", "ratio_high"):
            rows[column] *= factor
    known = rows[rows["ratio"].notna()]
    return [
        (f"{engine}, prompt {prompt}, generated {generated}, interleaved", group)
        for (engine, prompt, generated), group in known.groupby(["engine", "prompt", "generated"])
    ]


def _ratios_by_batch(axes: Axes, results: Results, rows: pd.DataFrame, title: str) -> None:
    axes.set_title(title, fontsize=8, loc="left")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.axhline(1, color="black", ls=DASHES, lw=0.9, zorder=1)
    variants = list(by_variant(results, rows))
    for number, (variant, group) in enumerate(variants):
        shift = 2 ** (0.22 * (number - (len(variants) - 1) / 2))  # side by side, so that no interval hides another
        style = results.styles[variant] | {"ls": "", "ms": 3.5}
        points(axes, group["batch"] * shift, group["ratio"], style, yerr=error_bars(group, "ratio"))
    count_axis(axes, rows["batch"].to_numpy(), AXES["batch"])
    axes.set_ylabel("Relative to the base")


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
        factor = scale if scale == 1.0 else scale / trials["needed_bytes"].to_numpy(dtype=np.float64)
        bars = error_bars(trials, "tokens_per_second", factor)
        points(axes, trials[axis], trials[name], results.styles[variant], yerr=bars)
    scales = scale if scale == 1.0 else scale / good["needed_bytes"].to_numpy(dtype=np.float64)
    value = good[name].to_numpy(dtype=np.float64)
    below, above = error_bars(good, "tokens_per_second", scales)
    values = np.concatenate([value - below, value + above])
    room = max((values.max() / values.min()) ** 0.06, 1.06)
    axes.set_yscale("log")
    axes.set_ylim(values.min() / room, values.max() * room)
