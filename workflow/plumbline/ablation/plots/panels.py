"""What the figures share: their data, colours of layer sets and views, and rows of intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.ablation.analysis.labels import LAYERS, classifier_label, layers_label, representation_label, view_label
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
    learning_curve: pd.DataFrame
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
    def classifiers(self) -> list[str]:
        """The classifiers of the grid, in its order, without that of canonical tokens unless it is the only one."""
        found = list(dict.fromkeys(self.summary["classifier"]))
        return [name for name in found if name != "transformer"] or found

    def of(self, classifier: str) -> "FigureData":
        """What belongs to one classifier, and canonical tokens, which stand beside each; the records are those of all.

        Contrasts between classifiers belong to none.
        """
        frames = {name: getattr(self, name) for name in ("summary", "runs", "contrasts")}
        own = {name: frame[frame["classifier"].isin([classifier, "transformer"])] for name, frame in frames.items()}
        contrasts = own["contrasts"]
        own["contrasts"] = contrasts[contrasts["baseline_classifier"] == contrasts["classifier"]]
        return replace(self, **own)

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


def panel_rows(
    titles: Sequence[str], rows: Sequence[int], classifiers: Sequence[str], *, row_height: float = 0.25
) -> tuple[Figure, list[list[Axes]]]:
    """A row of panels for each classifier, a column for each title, tall enough for the longest list of names.

    They share x, and each title names its classifier.
    """
    height = 0.7 + len(classifiers) * (0.55 + row_height * max(max(rows, default=1), 3))
    width = WIDTH if len(titles) > 1 else 0.62 * WIDTH
    shape = (len(classifiers), len(titles))
    figure, axes = plt.subplots(*shape, figsize=(width, height), sharex=True, squeeze=False)
    for line, classifier in zip(axes, classifiers, strict=True):
        for panel, title in zip(line, titles, strict=True):
            panel.set_title(f"{title}, {classifier_label(classifier)}")
            panel.tick_params(labelbottom=True)
    return figure, [list(line) for line in axes]


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
