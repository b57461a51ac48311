"""Figures that compare representations: accuracy, drop, gap, and product against factor view."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plumbline.ablation.analysis.contrasts import best_trial, twins_of
from plumbline.ablation.analysis.labels import layers_label, view_label
from plumbline.ablation.plots.panels import (
    Tables,
    chance_line,
    faults,
    interval_dots,
    layers_entries,
    layers_style,
    legend_below,
    name_rows,
    offsets,
    panel_row,
    view_entries,
    view_style,
)
from plumbline.ablation.settings import FACTOR_STATISTICS
from plumbline.core.present.plotting import GREY, message_figure

MARK = "∗"


def accuracy(tables: Tables) -> Figure:
    """Test accuracy by representation: a panel per view, a colour per layer set, the chance line."""

    def finish(axes: Axes) -> None:
        axes.set_xlim(0, 102)
        chance_line(axes, tables.chance)

    figure = _by_view(tables, "test_accuracy", "Test accuracy (%)", finish)
    legend_below(figure, layers_entries(tables.layer_sets), chance=tables.chance)
    return figure


def gap(tables: Tables) -> Figure:
    """Train accuracy minus test accuracy by representation: a panel per view, a colour per layer set."""

    def finish(axes: Axes) -> None:
        axes.axvline(0, color=GREY, lw=0.8, zorder=1)

    figure = _by_view(tables, "gap", "Train − test accuracy (points)", finish)
    legend_below(figure, layers_entries(tables.layer_sets))
    return figure


def drop(tables: Tables) -> Figure:
    """The accuracy lost when only visual layers are seen, in points; a star where it is significant."""
    drops = tables.contrasts[tables.contrasts["kind"] == "visual_drop"]
    views = [view for view in tables.views if (drops["view"] == view).any()]
    if not views:
        return message_figure("No drop: the grid needs the layer sets all_layers and visual_only.")
    chosen = {view: _lost(drops[drops["view"] == view]) for view in views}
    figure, panels = panel_row([view_label(view) for view in views], [len(chosen[view]) for view in views])
    for axes, view in zip(panels, views, strict=True):
        frame = chosen[view]
        name_rows(axes, list(frame["representation"]))
        axes.axvline(0, color=GREY, lw=0.8, zorder=1)
        good = (frame["outcome"] == "ok").to_numpy()
        rows = np.arange(len(frame), dtype=float)
        columns = ("lost", "lost_low", "lost_high")
        interval_dots(axes, rows[good], frame[good], columns, layers_style("visual_only"))
        faults(axes, rows[~good], list(frame.loc[~good, "outcome"]), ["black"] * int((~good).sum()))
        for row in np.flatnonzero(frame["significant"].to_numpy(dtype=bool)):
            ends = 100 * frame[["lost", "lost_high"]].iloc[row].max()
            axes.annotate(MARK, (ends, row), xytext=(5, 0), textcoords="offset points", va="center", ha="center")
        axes.set_xlabel("Drop, all layers → visual only (points)")
        axes.margins(x=0.08)
    figure.supxlabel(f"{MARK} p < 0.05, Wilcoxon signed-rank, Holm-corrected within the view", fontsize=7.5)
    return figure


def invariance(tables: Tables) -> Figure:
    """Product view against factor view of each representation, by layer set.

    Below the twins stand the product representations without one, above a line at the best factor statistic.
    """
    layer_sets = [name for name in tables.layer_sets if not _sides(tables, name)[0].empty]
    if not layer_sets:
        return message_figure("No comparison: the grid needs the views factor and product.")
    names = {name: _invariance_rows(tables.summary, name) for name in layer_sets}
    first = names[layer_sets[0]]
    names = {name: first if set(rows) == set(first) else rows for name, rows in names.items()}
    figure, panels = panel_row([layers_label(name) for name in layer_sets], [len(rows) for rows in names.values()])
    for index, (axes, layers) in enumerate(zip(panels, layer_sets, strict=True)):
        _invariance_panel(axes, tables, layers, names[layers])
        if index and names[layers] == first:
            axes.tick_params(labelleft=False)
    entries = view_entries(("factor", "product"))
    legend_below(figure, entries, chance=tables.chance)
    figure.suptitle(
        f"Dotted line: best factor statistic.  {MARK} p < 0.05 against the factor twin, or against that line "
        "(Wilcoxon, Holm)",
        fontsize=7.5,
        color=GREY,
    )
    return figure


def _by_view(tables: Tables, name: str, title: str, finish: Callable[[Axes], None]) -> Figure:
    """A measure of every trial: panel per view, rows by the best layer set's mean, colour per layer set."""
    views = tables.views
    summary = tables.summary
    order = {view: _ordered(summary[summary["view"] == view], name, tables.layer_sets) for view in views}
    figure, panels = panel_row([view_label(view) for view in views], [len(order[view]) for view in views])
    for axes, view in zip(panels, views, strict=True):
        name_rows(axes, order[view])
        finish(axes)
        place = {representation: row for row, representation in enumerate(order[view])}
        for layers, offset in zip(tables.layer_sets, offsets(len(tables.layer_sets)), strict=True):
            chosen = summary[(summary["view"] == view) & (summary["layers"] == layers)]
            rows = chosen["representation"].map(place).to_numpy(dtype=float) + offset
            good = chosen["runs_ok"].to_numpy() > 0
            look = layers_style(layers)
            interval_dots(axes, rows[good], chosen[good], (name, f"{name}_low", f"{name}_high"), look)
            bad = chosen[~good]
            faults(axes, rows[~good], list(bad["outcome"]), [look[0]] * len(bad))
        axes.set_xlabel(title)
    return figure


def _ordered(chosen: pd.DataFrame, name: str, layer_sets: list[str]) -> list[str]:
    """Representations from the highest mean in the first layer set that has it; failed ones last."""
    table = chosen.pivot(index="representation", columns="layers", values=name).reindex(columns=layer_sets)
    first = table.bfill(axis=1).iloc[:, 0]
    return [str(entry) for entry in first.sort_values(ascending=False, kind="stable").index]


def _lost(drops: pd.DataFrame) -> pd.DataFrame:
    frame = drops.assign(lost=-drops["difference"], lost_low=-drops["high"], lost_high=-drops["low"])
    return frame.sort_values("lost", ascending=False, kind="stable").reset_index(drop=True)


def _sides(tables: Tables, layers: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Product and factor rows of a layer set, both empty unless both are there; by representation."""
    chosen = tables.summary[tables.summary["layers"] == layers]
    product, factor = (chosen[chosen["view"] == view].set_index("representation") for view in ("product", "factor"))
    if product.empty or factor.empty:
        return product.iloc[:0], factor.iloc[:0]
    return product, factor


def _invariance_rows(summary: pd.DataFrame, layers: str) -> list[str]:
    """Twins by product accuracy, then the product representations that have no twin."""
    chosen = summary[(summary["layers"] == layers) & (summary["view"] == "product")]
    ranked = list(chosen.sort_values("test_accuracy", ascending=False, kind="stable")["representation"])
    twins = set(twins_of(summary, layers))
    return [name for name in ranked if name in twins] + [name for name in ranked if name not in twins]


def _invariance_panel(axes: Axes, tables: Tables, layers: str, names: list[str]) -> None:
    product, factor = _sides(tables, layers)
    name_rows(axes, names)
    chance_line(axes, tables.chance)
    axes.set_xlim(0, 114)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("Test accuracy (%)")
    twins = [name for name in names if name in factor.index]
    if 0 < len(twins) < len(names):
        axes.axhline(len(twins) - 0.5, color=GREY, lw=0.6)
    statistics = factor[factor.index.isin(FACTOR_STATISTICS)]
    best = best_trial(statistics)
    if best is not None:
        axes.axvline(100 * best["test_accuracy"], color=view_style("factor")[0], ls=":", lw=1.1, zorder=1)
    columns = ("test_accuracy", "test_accuracy_low", "test_accuracy_high")
    for view, frame in (("factor", factor), ("product", product)):
        for row, name in enumerate(names):
            if name not in frame.index:
                continue
            trial = frame.loc[[name]]
            if trial["runs_ok"].iloc[0]:
                interval_dots(axes, np.array([row]), trial, columns, view_style(view))
            else:
                shift = -0.18 if view == "factor" else 0.18
                faults(axes, [row + shift], [str(trial["outcome"].iloc[0])], [view_style(view)[0]])
    for row, name in enumerate(names):
        if name in factor.index:
            ends = [100 * frame["test_accuracy"][name] for frame in (factor, product)]
            axes.plot(ends, [row, row], color="#BDBDBD", lw=2.2, solid_capstyle="butt", zorder=2)
    _mark_significant(axes, tables, layers, names)


def _mark_significant(axes: Axes, tables: Tables, layers: str, names: list[str]) -> None:
    """A star at the right edge of a row whose twin, or else the best factor statistic, it differs from."""
    chosen = tables.contrasts[
        (tables.contrasts["layers"] == layers) & tables.contrasts["kind"].isin(["twin", "over_best_statistic"])
    ]
    for row, name in enumerate(names):
        own = chosen[chosen["representation"] == name]
        own = own[own["kind"] == ("twin" if (own["kind"] == "twin").any() else "over_best_statistic")]
        if own["significant"].any():
            axes.text(1.0, row, MARK, transform=axes.get_yaxis_transform(), va="center", ha="right")
