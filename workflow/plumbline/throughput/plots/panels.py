"""What the figures share: the study's tables, how a variant looks, slices of the grid, and trials without a speed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from plumbline.core.present.plotting import FAULT, GREY, MARKERS, WIDTH
from plumbline.throughput.analysis.frames import CELL, contrasts_frame, trials_frame, variants_frame
from plumbline.throughput.analysis.records import machine_note, main_engine, outcome_text
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.settings import BASE

DASHES = (0, (4, 2))
PANELS_AT_MOST = 6
KEPT = "Share of each layer's parameters kept"
DISTURBED = "Measured while disturbed"
PALE = 0.35
"""Opacity of a bar that was measured while disturbed."""
ROW_HEIGHT = 0.17
"""Inches of a row in figures with a row per trial."""
MARK_POINTS, LABEL_POINTS = 8.0, 6.5


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The records and manifests, and what is computed from them."""

    records: list[dict[str, Any]]
    manifests: list[Manifest]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per trial."""
        return trials_frame(self.records, self.manifests)

    @cached_property
    def variants(self) -> pd.DataFrame:
        """A row per variant."""
        return variants_frame(self.manifests, self.records, self.trials)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """A row per comparison of two trials."""
        return contrasts_frame(self.records)

    @cached_property
    def looks(self) -> dict[str, dict[str, Any]]:
        """Variant -> colour, marker and line, the same in every figure: the base black, the others by their order."""
        names = list(dict.fromkeys(self.trials["variant"]))
        others = [name for name in names if name != BASE]
        colours = plt.get_cmap("viridis")(np.linspace(0.12, 0.88, max(len(others), 2)))
        looks: dict[str, dict[str, Any]] = {BASE: {"color": "black", "marker": MARKERS[0]}}
        for number, name in enumerate(others):
            looks[name] = {"color": tuple(colours[number]), "marker": MARKERS[(number + 1) % len(MARKERS)]}
        return {name: looks[name] for name in names}

    @cached_property
    def labels(self) -> dict[str, str]:
        """Variant -> its ratio, with the method where several are measured; one's own by its name."""
        methods = set(self.trials["method"]) - {"none", None}
        labels = {}
        for variant, group in self.trials.groupby("variant", sort=False):
            ratio, method = group["ratio"].iloc[0], group["method"].iloc[0]
            if variant == BASE:
                labels[str(variant)] = "1 (base)"
            elif np.isnan(ratio) or method == "own":
                labels[str(variant)] = str(variant)
            else:
                labels[str(variant)] = f"{ratio:.3g}" + (f" {method}" if len(methods) > 1 else "")
        return labels

    @cached_property
    def main_engine(self) -> str:
        """The engine with most trials."""
        return main_engine(list(self.trials["engine"]))

    @property
    def machine_note(self) -> str:
        """A sentence when the trials ran on different machines, else nothing."""
        return machine_note(self.records)


def slices(trials: pd.DataFrame, axis: str) -> list[pd.DataFrame]:
    """Trials that share everything but the variant and `axis`: those with two of its values, else the fullest slice."""
    others = [name for name in ("engine", *CELL) if name != axis]
    groups = [group for _, group in trials.groupby(others)]
    several = [group for group in groups if group[axis].nunique() > 1]
    return several or [max(groups, key=len)]


def without_panel(tables: Tables, groups: Sequence[pd.DataFrame]) -> str:
    """A sentence on trials without a speed whose engine has no panel among `groups`, else nothing."""
    drawn = {engine for group in groups for engine in group["engine"]}
    trials = tables.trials
    lost = trials[(trials["outcome"] != "ok") & ~trials["engine"].isin(drawn)]
    found = []
    for (engine, outcome), group in lost.groupby(["engine", "outcome"], sort=False):
        names = ", ".join(dict.fromkeys(tables.labels[variant] for variant in group["variant"]))
        found.append(f"{engine}, {names}: {outcome_text(str(outcome))}")
    return f"No speed, and no panel: {'; '.join(found)}." if found else ""


def slice_title(group: pd.DataFrame, axis: str) -> str:
    """What the trials of a slice share: `lean, batch 8, prompt 4`."""
    row = group.iloc[0]
    words = {"batch": "batch", "prompt": "prompt", "generated": "generated"}
    return ", ".join([row["engine"], *(f"{word} {row[name]}" for name, word in words.items() if name != axis)])


def panels(count: int, height: float = 2.7) -> tuple[Figure, list[Axes]]:
    """So many panels over the text width, two a row; a single one over its whole width."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows + 0.5), squeeze=False)
    for panel in axes.flat[count:]:
        panel.set_visible(False)
    return figure, list(axes.flat[:count])


def shown(groups: Sequence[pd.DataFrame], most: int = PANELS_AT_MOST) -> tuple[list[pd.DataFrame], str]:
    """At most so many slices, the fullest, and a sentence where that leaves some out."""
    if len(groups) <= most:
        return list(groups), ""
    kept = sorted(range(len(groups)), key=lambda number: -len(groups[number]))[:most]
    return [groups[number] for number in sorted(kept)], f"Not shown: {len(groups) - most} more like these."


def count_axis(axes: Axes, values: ArrayLike, label: str) -> None:
    """A log axis of counts with a tick at each, or at every other where they are many."""
    places = np.unique(np.asarray(values, dtype=np.float64))
    axes.set_xscale("log", base=2)
    spread = np.log2(places[-1] / places[0])
    margin = 2 ** max(0.09 * spread, 0.35)
    axes.set_xlim(places[0] / margin, places[-1] * margin)
    axes.xaxis.set_major_locator(FixedLocator(list(places[:: -(-len(places) // 9)])))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)


def log_axis(axes: Axes, which: str = "y") -> None:
    """A log axis with plain numbers, and with numbers between the decades where it spans few of them."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axes.set(**{f"{which}scale": "log"})
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low)
    digits = "123456789" if decades < 0.7 else "1235" if decades < 1.2 else "125" if decades < 2.5 else "1"

    def plain(value: float, _: int) -> str:
        return short(value) if f"{value:.6e}"[0] in digits else ""

    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(FuncFormatter(plain) if decades < 2.5 else NullFormatter())
    axes.tick_params(axis=which, which="minor", labelsize=7.5, pad=5.5)  # type: ignore[arg-type]


def short(value: float) -> str:
    """A number for an axis or a label: `0.35`, `12`, `18.75k`, `120k`, `3M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def failures_above(figure: Figure, axes: Axes, tables: Tables, group: pd.DataFrame, axis: str) -> list[Line2D]:
    """Trials of a slice without a speed, as crosses in their variant's colour under the panel's top edge.

    What they found stands above the crosses. Makes room for them; the panel must have its limits. Returns the legend
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
        words = "\n".join(dict.fromkeys(outcome_text(outcome) for outcome in there["outcome"]))
        _note(axes, place, -2.0, words, {"color": FAULT, "fontsize": LABEL_POINTS, "va": "top"})
        lines = words.count("\n") + 1
        for number, variant in enumerate(there["variant"]):
            below = -2.0 - LABEL_POINTS * 1.25 * lines - MARK_POINTS * (number + 0.5)
            look = {"color": tables.looks[variant]["color"], "fontsize": 11, "va": "center", "weight": "bold"}
            _note(axes, place, below, "×", look)
    return [Line2D([], [], color=GREY, marker="x", ls="", ms=5, mew=1.5, label="No speed (why: above it)")]


def row_label(tables: Tables, row: pd.Series) -> str:
    """A trial in a row of its own: `0.8  lean  b8 p4 g32`."""
    return f"{tables.labels[row['variant']]}  {row['engine']}  b{row['batch']} p{row['prompt']} g{row['generated']}"


def rows_figure(rows: int) -> tuple[Figure, Axes]:
    """A panel with a row for each of so many trials, the first on top."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + ROW_HEIGHT * max(rows, 3)))
    axes.set_ylim(rows - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure, axes


def failed_row(axes: Axes, place: float, outcome: str) -> None:
    """What a trial found instead of a speed, in red at the left end of its row."""
    look: dict[str, Any] = {"color": FAULT, "fontsize": LABEL_POINTS, "va": "center_baseline"}
    axes.annotate(
        f"× {outcome_text(outcome)}", (0, place), xycoords=axes.get_yaxis_transform(), xytext=(3, 0),
        textcoords="offset points", **look,
    )  # fmt: skip


def variant_entries(tables: Tables, names: Sequence[str], **look: Any) -> list[Line2D]:
    """Legend entries of variants, in the study's order."""
    return [
        Line2D([], [], **{"ms": 4.5, "mew": 0.4, "mec": "white", **tables.looks[name], **look}, label=label)
        for name, label in tables.labels.items()
        if name in set(names)
    ]


def legend_below(figure: Figure, handles: Sequence[Any], *, title: str | None = None, columns: int = 7) -> None:
    """One legend under the panels."""
    if handles:
        ncols = min(len(handles), columns)
        figure.legend(handles=list(handles), loc="outside lower center", ncols=ncols, title=title, title_fontsize=7.5)


def title_notes(figure: Figure, tables: Tables, *notes: str) -> None:
    """Says at the top that the trials ran on different machines, where they did, and further notes."""
    said = [note for note in (tables.machine_note, *notes) if note]
    if said:
        figure.suptitle("\n".join(said), fontsize=7, color=FAULT, wrap=True)


def points(axes: Axes, x: Any, y: Any, look: dict[str, Any], disturbed: Any, **bars: Any) -> None:
    """Points with error bars (`xerr` or `yerr`) and the line of `look`; hollow where `disturbed` says something."""
    line, size = look.get("ls", "-"), look.get("ms", 4.5)
    axes.errorbar(x, y, color=look["color"], ls=line, capsize=1.5, elinewidth=0.8, lw=1.2, zorder=3, **bars)
    hollow = np.asarray(disturbed, dtype=object) != ""
    across, up = np.asarray(x), np.asarray(y)
    marks: dict[str, Any] = {"ls": "", "marker": look["marker"], "ms": size, "color": look["color"], "zorder": 4}
    for chosen, inside, edge, width in ((~hollow, look["color"], "white", 0.4), (hollow, "white", look["color"], 1.0)):
        if chosen.any():
            axes.plot(across[chosen], up[chosen], mfc=inside, mec=edge, mew=width, **marks)


def disturbed_entry(trials: pd.DataFrame) -> list[Line2D]:
    """The legend entry of hollow points, where a good trial among those that are drawn was measured while disturbed."""
    if not ((trials["outcome"] == "ok") & (trials["disturbed"] != "")).any():
        return []
    return [Line2D([], [], color=GREY, marker="o", ls="", ms=4.5, mfc="white", mew=1.0, label=DISTURBED)]


def errors(group: pd.DataFrame, name: str = "tokens_per_second", scale: Any = 1.0) -> np.ndarray:
    """Lengths of error bars (2, n) of a rate that is drawn times `scale`; 0 where no interval is known."""
    value = group[name].to_numpy(dtype=np.float64)
    low, high = (group[f"{name}_{end}"].to_numpy(dtype=np.float64) for end in ("low", "high"))
    lengths = np.stack([value - low, high - value]) * np.asarray(scale, dtype=np.float64)
    return np.clip(np.nan_to_num(lengths), 0, None)


def by_variant(tables: Tables, group: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The trials of each variant, in the study's order."""
    for name in tables.looks:
        mine = group[group["variant"] == name]
        if len(mine):
            yield name, mine


def _note(axes: Axes, x: float, below: float, text: str, look: dict[str, Any]) -> None:
    """A text centred at `x`, so many points below the top edge."""
    axes.annotate(
        text, (x, 1.0), xycoords=axes.get_xaxis_transform(), xytext=(0, below), textcoords="offset points",
        ha="center", annotation_clip=False, linespacing=1.1, zorder=5, **look,
    ).set_in_layout(False)  # fmt: skip
