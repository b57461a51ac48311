"""What figures of several studies share: panels, log axes, one legend below, notes on top, error bars."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from plumbline.core.present.formatting import short
from plumbline.core.present.plotting import FAULT, WIDTH

DASHES = (0, (4, 2))


def single_panel(height: float = 3.1) -> tuple[Figure, Axes]:
    """One panel over the text width, with horizontal grid lines."""
    figure, axes = plt.subplots(figsize=(WIDTH, height))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    return figure, axes


def panels(count: int, height: float = 2.7, columns: int = 2) -> tuple[Figure, list[Axes]]:
    """`count` panels over the text width, `columns` a row; fewer take the whole width."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows + 0.5), squeeze=False)
    for panel in axes.flat[count:]:
        panel.set_visible(False)
    return figure, list(axes.flat[:count])


def legend_below(figure: Figure, handles: Sequence[Any], *, title: str | None = None, columns: int = 7) -> None:
    """One legend under all panels; none without handles."""
    if handles:
        ncols = min(len(handles), columns)
        figure.legend(handles=list(handles), loc="outside lower center", ncols=ncols, title=title, title_fontsize=7.5)


def notes_on_top(figure: Figure, *notes: str) -> None:
    """Says what a reader must know above the panels, a line per note; empty ones are left out."""
    if said := [note for note in notes if note]:
        figure.suptitle("\n".join(said), fontsize=7, color=FAULT, wrap=True)


def log_axis(axes: Axes, which: str = "y") -> None:
    """A log axis with plain numbers, and with numbers between the decades where it spans few of them."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axes.set(**{f"{which}scale": "log"})
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low)
    if decades < 0.7:  # between 0.8 and 1.8, say, there is one round number of a log axis
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.set_minor_locator(NullLocator())
        return
    digits = "1235" if decades < 1.2 else "125" if decades < 2.5 else "1"

    def plain(value: float, _: int) -> str:
        return short(value) if f"{value:.6e}"[0] in digits else ""

    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(FuncFormatter(plain) if decades < 2.5 else NullFormatter())
    axes.tick_params(axis=which, which="minor", labelsize=7.5, pad=5.5)  # type: ignore[arg-type]


def count_axis(axes: Axes, values: ArrayLike, label: str) -> None:
    """A log-2 x axis of counts with a tick at each, or at every other where they are many."""
    places = np.unique(np.asarray(values, dtype=np.float64))
    axes.set_xscale("log", base=2)
    spread = np.log2(places[-1] / places[0])
    margin = 2 ** max(0.09 * spread, 0.35)
    axes.set_xlim(places[0] / margin, places[-1] * margin)
    axes.xaxis.set_major_locator(FixedLocator(list(places[:: -(-len(places) // 9)])))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)


def error_bars(frame: pd.DataFrame, name: str, scale: Any = 1.0) -> np.ndarray:
    """Lengths (2, n) of the error bars of column `name`, from `_low` and `_high`, times `scale`; 0 where unknown."""
    value = frame[name].to_numpy(dtype=np.float64)
    low, high = (frame[f"{name}_{end}"].to_numpy(dtype=np.float64) for end in ("low", "high"))
    lengths = np.stack([value - low, high - value]) * np.asarray(scale, dtype=np.float64)
    return np.clip(np.nan_to_num(lengths), 0, None)
