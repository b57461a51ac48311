"""What the study's figures share: slices of the grid, failed trials, points with intervals, and a row per trial."""

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.core.present.formatting import outcome_label
from plumbline.core.present.plotting import FAULT, GREY, LABEL_POINTS, WIDTH
from plumbline.throughput.analysis.frames import CELL
from plumbline.throughput.plots.results import Results

PANELS_AT_MOST = 6
KEPT = "Share of each layer's parameters kept"
ROW_HEIGHT = 0.17
"""Inches of a row in figures with a row per trial."""
MARK_POINTS = 8.0


def slices(trials: pd.DataFrame, axis: str) -> list[pd.DataFrame]:
    """Groups of trials that differ only in variant and `axis`: those with several values of it, else the fullest.

    In a group with lines, variants that have a single value of `axis` are left out: a point is no line.
    """
    others = [name for name in ("engine", *CELL) if name != axis]
    groups = [group for _, group in trials.groupby(others)]
    lines = [group[group.groupby("variant")[axis].transform("nunique") > 1] for group in groups]
    return [group for group in lines if len(group)] or [max(groups, key=len)]


def largest(groups: Sequence[pd.DataFrame], most: int = PANELS_AT_MOST) -> tuple[list[pd.DataFrame], str]:
    """The `most` largest groups, in their order, and a sentence where that leaves some out."""
    if len(groups) <= most:
        return list(groups), ""
    kept = sorted(range(len(groups)), key=lambda number: -len(groups[number]))[:most]
    return [groups[number] for number in sorted(kept)], f"Not drawn: {len(groups) - most} more like these."


def slice_title(group: pd.DataFrame, axis: str) -> str:
    """What the trials of a slice share: `lean, batch 8, prompt 4`."""
    row = group.iloc[0]
    return ", ".join([row["engine"], *(f"{name} {row[name]}" for name in CELL if name != axis)])


def without_panel(results: Results, groups: Sequence[pd.DataFrame]) -> str:
    """A sentence on failed trials whose engine has no panel among `groups`, else nothing."""
    drawn = {engine for group in groups for engine in group["engine"]}
    trials = results.trials
    failed = trials[(trials["outcome"] != "ok") & ~trials["engine"].isin(drawn)]
    found = []
    for (engine, outcome), group in failed.groupby(["engine", "outcome"], sort=False):
        names = ", ".join(dict.fromkeys(results.labels[variant] for variant in group["variant"]))
        found.append(f"{engine}, {names}: {outcome_label(str(outcome))}")
    return f"No speed, and no panel: {'; '.join(found)}." if found else ""


def failures_above(figure: Figure, axes: Axes, results: Results, group: pd.DataFrame, axis: str) -> list[Line2D]:
    """Draws a slice's failed trials as crosses in their variant's colour below the panel's top edge.

    Their outcome stands above the crosses. Makes room for them; the panel must have its limits. Returns the legend
    entry.
    """
    failed = group[group["outcome"] != "ok"]
    if failed.empty:
        return []
    most = int(failed.groupby(axis).size().max())
    points = 72 * 0.75 * axes.get_position().height * figure.get_figheight()  # the layout will take some of it
    share = min(0.6, (MARK_POINTS * (most + 0.5) + LABEL_POINTS * 1.8) / points)
    low, high = axes.get_ylim()
    axes.set_ylim(low, low * (high / low) ** (1 / (1 - share)) if axes.get_yscale() == "log" else high / (1 - share))
    for place in sorted(failed[axis].unique()):
        there = failed[failed[axis] == place]
        text = "\n".join(dict.fromkeys(outcome_label(outcome) for outcome in there["outcome"]))
        _note(axes, place, -2.0, text, {"color": FAULT, "fontsize": LABEL_POINTS, "va": "top"})
        lines = text.count("\n") + 1
        for number, variant in enumerate(there["variant"]):
            below = -2.0 - LABEL_POINTS * 1.25 * lines - MARK_POINTS * (number + 0.5)
            style = {"color": results.styles[variant]["color"], "fontsize": 11, "va": "center", "weight": "bold"}
            _note(axes, place, below, "×", style)
    return [Line2D([], [], color=GREY, marker="x", ls="", ms=5, mew=1.5, label="No speed (reason above it)")]


def row_label(results: Results, row: pd.Series) -> str:
    """The label of a trial's row: `0.8  lean  b8 p4 g32`."""
    return f"{results.labels[row['variant']]}  {row['engine']}  b{row['batch']} p{row['prompt']} g{row['generated']}"


def rows_figure(rows: int) -> tuple[Figure, Axes]:
    """A panel with `rows` rows, the first on top."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + ROW_HEIGHT * max(rows, 3)))
    axes.set_ylim(rows - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure, axes


def failed_row(axes: Axes, place: float, outcome: str) -> None:
    """A failed trial's outcome, in red at the left end of its row."""
    style: dict[str, Any] = {"color": FAULT, "fontsize": LABEL_POINTS, "va": "center_baseline"}
    axes.annotate(
        f"× {outcome_label(outcome)}", (0, place), xycoords=axes.get_yaxis_transform(), xytext=(3, 0),
        textcoords="offset points", **style,
    )  # fmt: skip


def variant_entries(results: Results, names: Sequence[str], **style: Any) -> list[Line2D]:
    """Legend entries of variants, in the study's order."""
    return [
        Line2D([], [], **{"ms": 4.5, "mew": 0.4, "mec": "white", **results.styles[name], **style}, label=label)
        for name, label in results.labels.items()
        if name in set(names)
    ]


def points(axes: Axes, x: Any, y: Any, style: dict[str, Any], **bars: Any) -> None:
    """Points with error bars (`xerr` or `yerr`) and the line of `style`."""
    marks = {"marker": style["marker"], "ms": style.get("ms", 4.5), "mec": "white", "mew": 0.4}
    line = {"color": style["color"], "ls": style.get("ls", "-"), "lw": 1.2}
    axes.errorbar(x, y, **line, **marks, capsize=1.5, elinewidth=0.8, zorder=3, **bars)


def by_variant(results: Results, group: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The trials of each variant, in the study's order."""
    for name in results.styles:
        trials = group[group["variant"] == name]
        if len(trials):
            yield name, trials


def _note(axes: Axes, x: float, below: float, text: str, style: dict[str, Any]) -> None:
    """A text centred at `x`, `below` points from the top edge."""
    axes.annotate(
        text, (x, 1.0), xycoords=axes.get_xaxis_transform(), xytext=(0, below), textcoords="offset points",
        ha="center", annotation_clip=False, linespacing=1.1, zorder=5, **style,
    ).set_in_layout(False)  # fmt: skip
