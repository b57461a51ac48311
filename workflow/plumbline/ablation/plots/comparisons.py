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
    panel_rows,
    view_handles,
    view_style,
)
from plumbline.ablation.settings import FACTOR_STATISTICS
from plumbline.core.present.panels import legend_below
from plumbline.core.present.plotting import GREY, message_figure

BETTER, WORSE = "▲", "▼"
"""Marks of a significant difference, by its sign."""


def accuracy(data: FigureData) -> Figure:
    """Test accuracy by representation: panels by classifier and view, a colour per layer set, the chance line."""

    def finish(axes: Axes) -> None:
        axes.set_xlim(0, 102)
        chance_line(axes, data.chance)

    figure = _by_view(data, "test_accuracy", "Test accuracy (%)", finish)
    legend_below(figure, [*layers_handles(data.layer_sets), chance_handle(data.chance)])
    return figure


def gap(data: FigureData) -> Figure:
    """Train accuracy minus test accuracy by representation: panels by classifier and view, a colour per layer set."""

    def finish(axes: Axes) -> None:
        axes.axvline(0, color=GREY, lw=0.8, zorder=1)

    figure = _by_view(data, "gap", "Train − test accuracy (points)", finish)
    legend_below(figure, layers_handles(data.layer_sets))
    return figure


def drop(data: FigureData) -> Figure:
    """Accuracy lost when only visual layers are seen, in points; a mark where the change is significant."""
    drops = data.contrasts[data.contrasts["kind"] == "visual_drop"]
    views = [view for view in data.views if (drops["view"] == view).any()]
    if not views:
        return message_figure("No drop to show: the grid needs the layer sets all_layers and visual_only.")
    first = _drops(data, data.classifiers[0])
    names = {view: list(first.loc[first["view"] == view, "representation"]) for view in views}
    figure, panels = panel_rows(
        [view_label(view) for view in views], [len(names[view]) for view in views], data.classifiers
    )
    for line, classifier in zip(panels, data.classifiers, strict=True):
        own = _drops(data, classifier)
        for axes, view in zip(line, views, strict=True):
            frame = own[own["view"] == view].set_index("representation").loc[names[view]].reset_index()
            _drop_panel(axes, frame)
    figure.supxlabel(
        f"{BETTER} significantly less accurate, {WORSE} significantly more accurate on the visual layers: p < 0.05,\n"
        "corrected resampled t-test, Holm-corrected within the view",
        fontsize=7.5,
    )
    return figure


def _drop_panel(axes: Axes, frame: pd.DataFrame) -> None:
    name_rows(axes, list(frame["representation"]))
    axes.axvline(0, color=GREY, lw=0.8, zorder=1)
    good = (frame["outcome"] == "ok").to_numpy()
    rows = np.arange(len(frame), dtype=float)
    interval_dots(axes, rows[good], frame[good], "lost", layers_style("visual_only"))
    mark_failed(axes, rows[~good], list(frame.loc[~good, "outcome"]), ["black"] * int((~good).sum()))
    for row in np.flatnonzero(frame["significant"].to_numpy(dtype=bool)):
        ends = 100 * frame[["lost", "lost_high"]].iloc[row].max()
        mark = BETTER if frame["lost"].iloc[row] > 0 else WORSE
        axes.annotate(
            mark, (ends, row), xytext=(6, 0), textcoords="offset points", va="center", ha="center", fontsize=5.5
        )
    axes.set_xlabel("Drop, all layers → visual only (points)")
    axes.margins(x=0.08)


def invariance(data: FigureData) -> Figure:
    """Product view against factor view of each representation, by layer set.

    Below the rule are the product representations without a factor-view counterpart. A dotted line marks the best
    factor statistic.
    """
    one = data.of(data.classifiers[0])
    layer_sets = [name for name in data.layer_sets if not _sides(one, name)[0].empty]
    if not layer_sets:
        return message_figure("Nothing to compare: the grid needs the views factor and product.")
    names = {name: _invariance_rows(one.summary, name) for name in layer_sets}
    first = names[layer_sets[0]]
    names = {name: first if set(rows) == set(first) else rows for name, rows in names.items()}
    figure, panels = panel_rows(
        [layers_label(name) for name in layer_sets], [len(rows) for rows in names.values()], data.classifiers
    )
    for line, classifier in zip(panels, data.classifiers, strict=True):
        for index, (axes, layers) in enumerate(zip(line, layer_sets, strict=True)):
            _invariance_panel(axes, data.of(classifier), layers, names[layers])
            if index and names[layers] == first:
                axes.tick_params(labelleft=False)
    legend_below(figure, [*view_handles(("factor", "product")), chance_handle(data.chance)])
    figure.suptitle(
        f"Dotted line: best factor statistic.  {BETTER} product significantly better, {WORSE} significantly worse than "
        "the factor view\nor, below the rule, than the dotted line: p < 0.05, corrected resampled t-test, Holm",
        fontsize=7.5,
        color=GREY,
    )
    return figure


def _by_view(data: FigureData, name: str, title: str, finish: Callable[[Axes], None]) -> Figure:
    """A measure of every trial: panels by classifier and view, a colour per layer set.

    Rows are sorted by the first classifier and layer set, so that another classifier's ranking can be compared.
    """
    views, ranked = data.views, data.of(data.classifiers[0]).summary
    order = {view: _ordered(ranked[ranked["view"] == view], name, data.layer_sets) for view in views}
    figure, panels = panel_rows(
        [view_label(view) for view in views], [len(order[view]) for view in views], data.classifiers
    )
    for line, classifier in zip(panels, data.classifiers, strict=True):
        own = data.of(classifier).summary
        for axes, view in zip(line, views, strict=True):
            finish(axes)
            _measure_panel(axes, own[own["view"] == view], name, order[view], data.layer_sets)
            axes.set_xlabel(title)
    return figure


def _measure_panel(axes: Axes, trials: pd.DataFrame, name: str, order: list[str], layer_sets: list[str]) -> None:
    name_rows(axes, order)
    place = {representation: row for row, representation in enumerate(order)}
    for layers, offset in zip(layer_sets, offsets(len(layer_sets)), strict=True):
        chosen = trials[trials["layers"] == layers]
        rows = chosen["representation"].map(place).to_numpy(dtype=float) + offset
        good = chosen["runs_ok"].to_numpy() > 0
        style = layers_style(layers)
        interval_dots(axes, rows[good], chosen[good], name, style)
        mark_failed(axes, rows[~good], list(chosen.loc[~good, "outcome"]), [style[0]] * int((~good).sum()))


def _ordered(chosen: pd.DataFrame, name: str, layer_sets: list[str]) -> list[str]:
    """Representations by falling mean in the first layer set where they have one; failed ones last."""
    table = chosen.pivot(index="representation", columns="layers", values=name).reindex(columns=layer_sets)
    first = table.bfill(axis=1).iloc[:, 0]
    return [str(entry) for entry in first.sort_values(ascending=False, kind="stable").index]


def _drops(data: FigureData, classifier: str) -> pd.DataFrame:
    contrasts = data.of(classifier).contrasts
    drops = contrasts[contrasts["kind"] == "visual_drop"]
    frame = drops.assign(lost=-drops["difference"], lost_low=-drops["high"], lost_high=-drops["low"])
    return frame.sort_values("lost", ascending=False, kind="stable")


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
    """On the right: is a row better or worse than its counterpart or, without one, than the best factor statistic?"""
    chosen = data.contrasts[
        (data.contrasts["layers"] == layers) & data.contrasts["kind"].isin(["counterpart", "over_best_statistic"])
    ]
    for row, name in enumerate(names):
        own = chosen[chosen["representation"] == name].sort_values("kind")  # a counterpart first
        if len(own) and own["significant"].iloc[0]:
            mark = BETTER if own["difference"].iloc[0] > 0 else WORSE
            edge = axes.get_yaxis_transform()
            axes.text(1.0, row, mark, transform=edge, va="center", ha="right", fontsize=5.5)
