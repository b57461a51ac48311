"""Figures that compare representations: accuracy, drop, gap, and product against factor view."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plumbline.ablation.analysis.contrasts import best_trial, shared_representations
from plumbline.ablation.analysis.labels import layers_label, view_label
from plumbline.ablation.plots.panels import (
    FigureData,
    chance_handle,
    chance_line,
    interval_dots,
    layers_handles,
    layers_style,
    mark_failed,
    name_rows,
    offsets,
    panel_row,
    view_handles,
    view_style,
)
from plumbline.ablation.settings import FACTOR_STATISTICS
from plumbline.core.present.panels import legend_below
from plumbline.core.present.plotting import GREY, message_figure

STAR = "∗"


def accuracy(data: FigureData) -> Figure:
    """Test accuracy by representation: a panel per view, a colour per layer set, the chance line."""

    def finish(axes: Axes) -> None:
        axes.set_xlim(0, 102)
        chance_line(axes, data.chance)

    figure = _by_view(data, "test_accuracy", "Test accuracy (%)", finish)
    legend_below(figure, [*layers_handles(data.layer_sets), chance_handle(data.chance)])
    return figure


def gap(data: FigureData) -> Figure:
    """Train accuracy minus test accuracy by representation: a panel per view, a colour per layer set."""

    def finish(axes: Axes) -> None:
        axes.axvline(0, color=GREY, lw=0.8, zorder=1)

    figure = _by_view(data, "gap", "Train − test accuracy (points)", finish)
    legend_below(figure, layers_handles(data.layer_sets))
    return figure


def drop(data: FigureData) -> Figure:
    """Accuracy lost when only visual layers are seen, in points; a star where the loss is significant."""
    drops = data.contrasts[data.contrasts["kind"] == "visual_drop"]
    views = [view for view in data.views if (drops["view"] == view).any()]
    if not views:
        return message_figure("No drop to show: the grid needs the layer sets all_layers and visual_only.")
    chosen = {view: _lost(drops[drops["view"] == view]) for view in views}
    figure, panels = panel_row([view_label(view) for view in views], [len(chosen[view]) for view in views])
    for axes, view in zip(panels, views, strict=True):
        frame = chosen[view]
        name_rows(axes, list(frame["representation"]))
        axes.axvline(0, color=GREY, lw=0.8, zorder=1)
        good = (frame["outcome"] == "ok").to_numpy()
        rows = np.arange(len(frame), dtype=float)
        interval_dots(axes, rows[good], frame[good], "lost", layers_style("visual_only"))
        mark_failed(axes, rows[~good], list(frame.loc[~good, "outcome"]), ["black"] * int((~good).sum()))
        for row in np.flatnonzero(frame["significant"].to_numpy(dtype=bool)):
            ends = 100 * frame[["lost", "lost_high"]].iloc[row].max()
            axes.annotate(STAR, (ends, row), xytext=(5, 0), textcoords="offset points", va="center", ha="center")
        axes.set_xlabel("Drop, all layers → visual only (points)")
        axes.margins(x=0.08)
    figure.supxlabel(f"{STAR} p < 0.05, Wilcoxon signed-rank, Holm-corrected within the view", fontsize=7.5)
    return figure


def invariance(data: FigureData) -> Figure:
    """Product view against factor view of each representation, by layer set.

    Below the rule are the product representations without a factor-view counterpart. A dotted line marks the best
    factor statistic.
    """
    layer_sets = [name for name in data.layer_sets if not _sides(data, name)[0].empty]
    if not layer_sets:
        return message_figure("Nothing to compare: the grid needs the views factor and product.")
    names = {name: _invariance_rows(data.summary, name) for name in layer_sets}
    first = names[layer_sets[0]]
    names = {name: first if set(rows) == set(first) else rows for name, rows in names.items()}
    figure, panels = panel_row([layers_label(name) for name in layer_sets], [len(rows) for rows in names.values()])
    for index, (axes, layers) in enumerate(zip(panels, layer_sets, strict=True)):
        _invariance_panel(axes, data, layers, names[layers])
        if index and names[layers] == first:
            axes.tick_params(labelleft=False)
    legend_below(figure, [*view_handles(("factor", "product")), chance_handle(data.chance)])
    figure.suptitle(
        f"Dotted line: best factor statistic.  {STAR} p < 0.05 (Wilcoxon, Holm) against the factor view "
        "or, below the rule, the dotted line",
        fontsize=7.5,
        color=GREY,
    )
    return figure


def _by_view(data: FigureData, name: str, title: str, finish: Callable[[Axes], None]) -> Figure:
    """A measure of every trial: a panel per view, rows sorted by the first layer set, a colour per layer set."""
    views = data.views
    summary = data.summary
    order = {view: _ordered(summary[summary["view"] == view], name, data.layer_sets) for view in views}
    figure, panels = panel_row([view_label(view) for view in views], [len(order[view]) for view in views])
    for axes, view in zip(panels, views, strict=True):
        name_rows(axes, order[view])
        finish(axes)
        place = {representation: row for row, representation in enumerate(order[view])}
        for layers, offset in zip(data.layer_sets, offsets(len(data.layer_sets)), strict=True):
            chosen = summary[(summary["view"] == view) & (summary["layers"] == layers)]
            rows = chosen["representation"].map(place).to_numpy(dtype=float) + offset
            good = chosen["runs_ok"].to_numpy() > 0
            style = layers_style(layers)
            interval_dots(axes, rows[good], chosen[good], name, style)
            bad = chosen[~good]
            mark_failed(axes, rows[~good], list(bad["outcome"]), [style[0]] * len(bad))
        axes.set_xlabel(title)
    return figure


def _ordered(chosen: pd.DataFrame, name: str, layer_sets: list[str]) -> list[str]:
    """Representations by falling mean in the first layer set where they have one; failed ones last."""
    table = chosen.pivot(index="representation", columns="layers", values=name).reindex(columns=layer_sets)
    first = table.bfill(axis=1).iloc[:, 0]
    return [str(entry) for entry in first.sort_values(ascending=False, kind="stable").index]


def _lost(drops: pd.DataFrame) -> pd.DataFrame:
    frame = drops.assign(lost=-drops["difference"], lost_low=-drops["high"], lost_high=-drops["low"])
    return frame.sort_values("lost", ascending=False, kind="stable").reset_index(drop=True)


def _sides(data: FigureData, layers: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The product and the factor trials of a layer set, indexed by representation; both empty if either is."""
    chosen = data.summary[data.summary["layers"] == layers]
    product, factor = (chosen[chosen["view"] == view].set_index("representation") for view in ("product", "factor"))
    if product.empty or factor.empty:
        return product.iloc[:0], factor.iloc[:0]
    return product, factor


def _invariance_rows(summary: pd.DataFrame, layers: str) -> list[str]:
    """Product representations by falling accuracy: those with a factor-view counterpart, then the others."""
    chosen = summary[(summary["layers"] == layers) & (summary["view"] == "product")]
    ranked = list(chosen.sort_values("test_accuracy", ascending=False, kind="stable")["representation"])
    paired = set(shared_representations(summary, layers))
    return sorted(ranked, key=lambda name: name not in paired)


def _invariance_panel(axes: Axes, data: FigureData, layers: str, names: list[str]) -> None:
    product, factor = _sides(data, layers)
    name_rows(axes, names)
    chance_line(axes, data.chance)
    axes.set_xlim(0, 114)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("Test accuracy (%)")
    paired = sum(name in factor.index for name in names)
    if 0 < paired < len(names):
        axes.axhline(paired - 0.5, color=GREY, lw=0.6)
    statistics = factor[factor.index.isin(FACTOR_STATISTICS)]
    best = best_trial(statistics)
    if best is not None:
        axes.axvline(100 * best["test_accuracy"], color=view_style("factor")[0], ls=":", lw=1.1, zorder=1)
    for view, frame in (("factor", factor), ("product", product)):
        for row, name in enumerate(names):
            if name not in frame.index:
                continue
            trial = frame.loc[[name]]
            if trial["runs_ok"].iloc[0]:
                interval_dots(axes, np.array([row]), trial, "test_accuracy", view_style(view))
            else:
                shift = -0.18 if view == "factor" else 0.18
                mark_failed(axes, [row + shift], [str(trial["outcome"].iloc[0])], [view_style(view)[0]])
    for row, name in enumerate(names):
        if name in factor.index:
            ends = [100 * frame["test_accuracy"][name] for frame in (factor, product)]
            axes.plot(ends, [row, row], color="#BDBDBD", lw=2.2, solid_capstyle="butt", zorder=2)
    _mark_significant(axes, data, layers, names)


def _mark_significant(axes: Axes, data: FigureData, layers: str, names: list[str]) -> None:
    """A star on the right where a row differs from its counterpart or, without one, from the best factor statistic."""
    chosen = data.contrasts[
        (data.contrasts["layers"] == layers) & data.contrasts["kind"].isin(["counterpart", "over_best_statistic"])
    ]
    for row, name in enumerate(names):
        row_contrasts = chosen[chosen["representation"] == name].set_index("kind")["significant"]
        if row_contrasts.get("counterpart", row_contrasts.get("over_best_statistic", False)):
            axes.text(1.0, row, STAR, transform=axes.get_yaxis_transform(), va="center", ha="right")
