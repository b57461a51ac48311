"""What the figures share: the study's tables, the axis of learning rates, and how a diverged trial is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from plumbline.core.plotting import FAULT, GREY, WIDTH
from plumbline.lr_sweep.analysis import Analysis, analyse, sweep_of
from plumbline.lr_sweep.frames import rates_frame, trials_frame
from plumbline.lr_sweep.records import machine_note

DASHES = (0, (4, 2))


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The trials' records, and what is computed from them."""

    records: list[dict[str, Any]]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per trial."""
        return trials_frame(self.records)

    @cached_property
    def rates(self) -> pd.DataFrame:
        """A row per rate."""
        return rates_frame(self.trials)

    @cached_property
    def analysis(self) -> Analysis:
        """Optimum, edge, sensitivity."""
        return analyse(sweep_of(self.records))

    @property
    def trained(self) -> pd.DataFrame:
        """The trials that have a loss, be it a diverged one."""
        return self.trials[self.trials["class"].notna()]

    @property
    def entropy(self) -> float:
        """The corpus's unigram entropy in nats; NaN when no trial recorded it."""
        known = self.trials["unigram_entropy_nats"].dropna()
        return float(known.iloc[0]) if len(known) else float("nan")

    @property
    def machine_note(self) -> str:
        """A sentence when the trials ran on different machines, else nothing."""
        return machine_note(self.records)


def single_panel(height: float = 3.1) -> tuple[Figure, Axes]:
    """One panel over the text width."""
    figure, axes = plt.subplots(figsize=(WIDTH, height))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    return figure, axes


def rate_axis(axes: Axes, rates: np.ndarray) -> None:
    """A log axis of learning rates with a tick at every rate, or at every other where they are many."""
    values = np.sort(rates)
    spread = np.log(values[-1] / values[0])
    margin = np.exp(0.04 * spread if spread else 0.5)
    axes.set_xscale("log")
    axes.set_xlim(values[0] / margin, values[-1] * margin)
    every = -(-len(values) // 14)
    axes.set_xticks(values[::every])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Learning rate (peak)")


def loss_axis(axes: Axes, losses: np.ndarray, entropy: float) -> None:
    """Limits that hold all `losses` and the unigram entropy, with room above for the crosses of diverged trials."""
    values = np.asarray([*losses, entropy], dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size:
        room = float(np.ptp(values)) or 1.0
        axes.set_ylim(values.min() - 0.06 * room, values.max() + 0.14 * room)
    axes.set_ylabel("Final validation loss (nats per token)")


def entropy_line(axes: Axes, entropy: float) -> list[Line2D]:
    """The loss of a model that knows only how frequent each token is; its legend entry, none when unknown."""
    if np.isnan(entropy):
        return []
    return [axes.axhline(entropy, color=GREY, ls=DASHES, lw=0.9, zorder=1, label="Unigram entropy")]


def diverged_crosses(axes: Axes, trials: pd.DataFrame) -> list[Line2D]:
    """A red cross along the top edge for each diverged trial, those of a rate beside each other; their legend entry."""
    diverged = trials[trials["class"] == "diverged"]
    top = axes.get_xaxis_transform()
    for rate, count in zip(*np.unique(diverged["rate"].to_numpy(dtype=np.float64), return_counts=True), strict=True):
        for place in np.arange(count) - (count - 1) / 2:
            axes.annotate(
                "×", (float(rate), 0.955), xycoords=top, xytext=(7 * place, 0), textcoords="offset points",
                color=FAULT, fontsize=12, ha="center", va="center", annotation_clip=False, zorder=5,
            ).set_in_layout(False)  # fmt: skip
    return [Line2D([], [], color=FAULT, marker="x", ls="", ms=5, mew=1.3, label="Diverged")] if len(diverged) else []


def legend_below(figure: Figure, handles: Sequence[Any], *, columns: int = 6) -> None:
    """One legend under the panel."""
    if handles:
        figure.legend(handles=list(handles), loc="outside lower center", ncols=min(len(handles), columns))


def title_machines(figure: Figure, tables: Tables) -> None:
    """Says at the top that the trials ran on different machines, where they did."""
    if tables.machine_note:
        figure.suptitle(tables.machine_note, fontsize=7, color=FAULT, wrap=True)
