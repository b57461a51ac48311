"""What the figures share: the data of the sweep, the axis of learning rates, and how diverged trials are drawn."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from plumbline.core.present.panels import DASHES
from plumbline.core.present.plotting import FAULT, GREY
from plumbline.core.run.records import machine_note, machines
from plumbline.lr_sweep.analysis.frames import rates_frame, shows_intervals, trials_frame
from plumbline.lr_sweep.analysis.seeds import spread_name
from plumbline.lr_sweep.analysis.sweep import Analysis, analyse, sweep_of
from plumbline.lr_sweep.record import TrialRecord

OFF_SCALE = 0.94
"""Share of the panel's height at which trials are drawn whose loss is off the scale."""


@dataclass(frozen=True, kw_only=True)
class SweepData:
    """The trials' records, and everything computed from them."""

    records: list[TrialRecord]

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
        """The trials that have a loss, diverged ones included."""
        return self.trials[self.trials["class"].notna()]

    @property
    def entropy(self) -> float:
        """The corpus's unigram entropy in nats; NaN when no trial recorded it."""
        known = self.trials["unigram_entropy_nats"].dropna()
        return float(known.iloc[0]) if len(known) else float("nan")

    @property
    def spread_name(self) -> str:
        """What a band over seeds shows: their range or an interval."""
        return spread_name(interval=shows_intervals(self.trials))

    @property
    def machine_note(self) -> str:
        """A sentence when the trials ran on different machines, otherwise an empty string."""
        return machine_note(machines(self.records))


def rate_axis(axes: Axes, rates: np.ndarray) -> None:
    """A log axis of learning rates with a tick at every rate, or at every n-th when there are many."""
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


def loss_axis(axes: Axes, losses: np.ndarray, entropy: float, *, diverged: bool) -> None:
    """Limits that include all `losses` and the unigram entropy; with an "off scale" strip when trials `diverged`."""
    values = np.asarray([*losses, entropy], dtype=np.float64)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    room = float(high - low) or 1.0
    axes.set_ylabel("Final validation loss (nats per token)")
    if not diverged:
        axes.set_ylim(low - 0.06 * room, high + 0.06 * room)
        return
    axes.set_ylim(low - 0.06 * room, high + 0.24 * room)
    bottom, top = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if bottom <= tick <= high + 0.04 * room] if values.size else []
    texts = axes.yaxis.get_major_formatter().format_ticks(ticks)
    axes.set_yticks([*ticks, bottom + OFF_SCALE * (top - bottom)], [*texts, "off scale"])
    off_scale = axes.yaxis.get_major_ticks()[-1]
    for line in (off_scale.gridline, off_scale.tick1line):
        line.set_visible(False)
    axes.plot([0, 1], [2 * OFF_SCALE - 1] * 2, color=GREY, lw=0.6, transform=axes.transAxes, zorder=1)


def entropy_line(axes: Axes, entropy: float) -> list[Line2D]:
    """The loss of a model that knows only how often each token occurs; its legend entry, none when unknown."""
    if np.isnan(entropy):
        return []
    return [axes.axhline(entropy, color=GREY, ls=DASHES, lw=0.9, zorder=1, label="Unigram entropy")]


def diverged_crosses(axes: Axes, trials: pd.DataFrame) -> list[Line2D]:
    """A red cross in the off-scale strip at each rate with a diverged trial, with a count when not all diverged."""
    if not (trials["class"] == "diverged").any():
        return []
    for rate in trials["rate"][trials["class"] == "diverged"].unique():
        classes = trials["class"][trials["rate"] == rate]
        place: Any = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        style: Any = {"color": FAULT, "ha": "center", "va": "center", "annotation_clip": False, "zorder": 5}
        at = (float(rate), OFF_SCALE)
        axes.annotate("×", at, **place, xytext=(0, 0), fontsize=12, **style).set_in_layout(False)
        count = int((classes == "diverged").sum())
        if count < len(classes):
            axes.annotate(f"{count} of {len(classes)}", at, **place, xytext=(0, 11), fontsize=6, **style)
    return [Line2D([], [], color=FAULT, marker="x", ls="", ms=5, mew=1.3, label="Diverged")]
