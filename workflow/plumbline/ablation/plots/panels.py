"""What the figures share: their data, colours of layer sets and views, and rows of intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.ablation.analysis.labels import LAYERS, layers_label, representation_label, view_label
from plumbline.ablation.analysis.records import TrialRecord
from plumbline.core.present.formatting import outcome_label
from plumbline.core.present.panels import DASHES, error_bars
from plumbline.core.present.plotting import FAULT, GREY, MARKERS, PALETTE, WIDTH

Style = tuple[str, str]
"""Colour and marker."""


@dataclass(frozen=True, kw_only=True)
class FigureData:
    """The frames that stage `summarize` wrote, and the records behind them."""

    summary: pd.DataFrame
    runs: pd.DataFrame
    contrasts: pd.DataFrame
    records: list[TrialRecord]

    @property
    def views(self) -> list[str]:
        """The views of the grid, in its order."""
        return list(dict.fromkeys(self.summary["view"]))

    @property
    def layer_sets(self) -> list[str]:
        """The layer sets of the grid, in its order."""
        return list(dict.fromkeys(self.summary["layers"]))

    @property
    def chance(self) -> float:
        """Accuracy of guessing, a fraction."""
        return float(self.summary["chance"].iloc[0])


def layers_style(layers: str) -> Style:
    """The style of a layer set, the same in every figure."""
    index = list(LAYERS).index(layers)
    return PALETTE[index], MARKERS[index]


def view_style(view: str) -> Style:
    """The style of a view, the same in every figure and different from the layer sets'."""
    return (PALETTE[4], MARKERS[3]) if view == "factor" else (PALETTE[6], MARKERS[0])


def panel_row(titles: Sequence[str], rows: Sequence[int], *, row_height: float = 0.27) -> tuple[Figure, list[Axes]]:
    """Panels side by side, tall enough for the longest list of names; they share x."""
    height = 1.25 + row_height * max(max(rows, default=1), 3)
    width = WIDTH if len(titles) > 1 else 0.62 * WIDTH
    figure, axes = plt.subplots(1, len(titles), figsize=(width, height), sharex=True, squeeze=False)
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title)
    return figure, list(axes[0])


def name_rows(axes: Axes, representations: Sequence[str]) -> None:
    """One row per representation, the first on top, with its display name and a faint rule."""
    axes.set_yticks(range(len(representations)), [representation_label(name) for name in representations])
    axes.set_ylim(len(representations) - 0.5, -0.5)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def interval_dots(axes: Axes, positions: np.ndarray, frame: pd.DataFrame, name: str, style: Style) -> None:
    """Column `name` in percent with its interval, at the rows `positions`; an unknown interval draws no bar."""
    mean, bars = 100 * frame[name].to_numpy(dtype=np.float64), error_bars(frame, name, 100)
    colour, marker = style
    axes.errorbar(
        mean, positions, xerr=bars, fmt=marker, color=colour, ms=4, elinewidth=1.1, capsize=0, zorder=3, mew=0
    )


def offsets(count: int, room: float = 0.5) -> np.ndarray:
    """Offsets of `count` series within a row, spread evenly around its middle."""
    return (np.arange(count) - (count - 1) / 2) * room / max(count, 2)


def mark_failed(
    axes: Axes, positions: Sequence[float] | np.ndarray, outcomes: Sequence[str], colours: Sequence[str]
) -> None:
    """A red cross and the outcome, right of the axes, in the rows of trials that have no accuracy."""
    edge = axes.get_yaxis_transform()
    for position, outcome, colour in zip(positions, outcomes, colours, strict=True):
        axes.plot([1.03], [position], "x", color=FAULT, ms=4.5, mew=1.3, transform=edge, clip_on=False, zorder=4)
        text = outcome_label(outcome)
        axes.text(1.055, position, text, color=colour, fontsize=6.0, va="center_baseline", transform=edge)


def chance_line(axes: Axes, chance: float) -> None:
    """A vertical line at the accuracy of guessing."""
    axes.axvline(100 * chance, color=GREY, ls=DASHES, lw=0.9, zorder=1)


def chance_handle(chance: float) -> Line2D:
    """Legend handle of the accuracy of guessing."""
    return Line2D([], [], color=GREY, ls=DASHES, lw=0.9, label=f"Chance ({100 * chance:.3g}%)")


def layers_handles(layer_sets: Sequence[str]) -> list[Line2D]:
    """Legend handles of the layer sets."""
    return [_handle(layers_label(name), layers_style(name)) for name in layer_sets]


def view_handles(views: Sequence[str]) -> list[Line2D]:
    """Legend handles of the views."""
    return [_handle(view_label(name), view_style(name)) for name in views]


def _handle(label: str, style: Style) -> Line2D:
    return Line2D([], [], color=style[0], marker=style[1], ls="-", ms=4, mew=0, label=label)
