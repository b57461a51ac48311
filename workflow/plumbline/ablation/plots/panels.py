"""What the figures share: the study's tables, colours of layer sets and views, and rows of intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.ablation.analysis.labels import layers_label, outcome_label, representation_label, view_label
from plumbline.core.present.plotting import FAULT, GREY, MARKERS, PALETTE, WIDTH

LAYER_SETS = ("all_layers", "visual_only", "text_only")
VIEWS = ("factor", "product")


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The tables that `summarize` wrote, and the records they come from."""

    summary: pd.DataFrame
    runs: pd.DataFrame
    contrasts: pd.DataFrame
    records: list[dict[str, Any]]

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


def layers_style(layers: str) -> tuple[str, str]:
    """Colour and marker of a layer set, the same in every figure."""
    index = LAYER_SETS.index(layers) if layers in LAYER_SETS else len(LAYER_SETS)
    return PALETTE[index], MARKERS[index]


def view_style(view: str) -> tuple[str, str]:
    """Colour and marker of a view, the same in every figure and none of the layer sets'."""
    return (PALETTE[4], MARKERS[3]) if view == "factor" else (PALETTE[6], MARKERS[0])


def panel_row(titles: Sequence[str], rows: Sequence[int], *, row_height: float = 0.27) -> tuple[Figure, list[Axes]]:
    """A row of panels beside each other, tall enough for the longest list of names; x is shared."""
    height = 1.25 + row_height * max(max(rows, default=1), 3)
    width = WIDTH if len(titles) > 1 else 0.62 * WIDTH
    figure, axes = plt.subplots(1, len(titles), figsize=(width, height), sharex=True, squeeze=False)
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title)
    return figure, list(axes[0])


def name_rows(axes: Axes, representations: Sequence[str]) -> None:
    """One row per representation, first on top, with its readable name and a faint rule."""
    axes.set_yticks(range(len(representations)), [representation_label(name) for name in representations])
    axes.set_ylim(len(representations) - 0.5, -0.5)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def interval_dots(
    axes: Axes, positions: np.ndarray, frame: pd.DataFrame, columns: tuple[str, str, str], look: tuple[str, str]
) -> None:
    """Means in percent with their intervals at the rows `positions`; a missing interval draws no bar."""
    mean, low, high = (100 * frame[name].to_numpy(dtype=np.float64) for name in columns)
    colour, marker = look
    bars = np.nan_to_num(np.vstack([mean - low, high - mean]))
    axes.errorbar(
        mean, positions, xerr=bars, fmt=marker, color=colour, ms=4, elinewidth=1.1, capsize=0, zorder=3, mew=0
    )


def offsets(count: int, room: float = 0.5) -> np.ndarray:
    """Places of `count` series inside a row, side by side around its middle."""
    return (np.arange(count) - (count - 1) / 2) * room / max(count, 2)


def faults(
    axes: Axes, positions: Sequence[float] | np.ndarray, outcomes: Sequence[str], colours: Sequence[str]
) -> None:
    """A red cross beside the row of a trial that found no accuracy, and what it found instead; right of the axes."""
    edge = axes.get_yaxis_transform()
    for position, outcome, colour in zip(positions, outcomes, colours, strict=True):
        axes.plot([1.03], [position], "x", color=FAULT, ms=4.5, mew=1.3, transform=edge, clip_on=False, zorder=4)
        text = outcome_label(outcome)
        axes.text(1.055, position, text, color=colour, fontsize=6.0, va="center_baseline", transform=edge)


def chance_line(axes: Axes, chance: float) -> None:
    """The accuracy of guessing."""
    axes.axvline(100 * chance, color=GREY, ls=(0, (4, 2)), lw=0.9, zorder=1)


def legend_below(figure: Figure, entries: Sequence[tuple[str, str, str]], *, chance: float | None = None) -> None:
    """One legend under all panels: (label, colour, marker) each, and the chance line where given."""
    handles = [Line2D([], [], color=c, marker=m, ls="-", ms=4, mew=0, label=name) for name, c, m in entries]
    if chance is not None:
        label = f"Chance ({100 * chance:.3g}%)"
        handles.append(Line2D([], [], color=GREY, ls=(0, (4, 2)), lw=0.9, label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=max(len(handles), 1))


def layers_entries(layer_sets: Sequence[str]) -> list[tuple[str, str, str]]:
    """Legend entries of the layer sets."""
    return [(layers_label(name), *layers_style(name)) for name in layer_sets]


def view_entries(views: Sequence[str]) -> list[tuple[str, str, str]]:
    """Legend entries of the views."""
    return [(view_label(name), *view_style(name)) for name in views]
