"""Figures of quality: perplexity against speed, and loss against the share of parameters kept."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.core.present.formatting import outcome_label
from plumbline.core.present.panels import DASHES, error_bars, legend_below, log_axis, notes_on_top, panels
from plumbline.core.present.plotting import GREY, LABEL_POINTS, MARKERS, PALETTE, message_figure
from plumbline.core.registry import short_name
from plumbline.core.statistics.rounds import Verdict
from plumbline.throughput.analysis.losses import loss_difference
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.plots.panels import (
    KEPT,
    PANELS_AT_MOST,
    by_variant,
    points,
    variant_entries,
)
from plumbline.throughput.plots.results import Results
from plumbline.throughput.record import ComparisonRecord
from plumbline.throughput.settings import BASE

NO_PERPLEXITY = "No variant has a perplexity: there is no tokenizer or no text."
NO_LOSSES = "No compressed variant was scored on the windows of the base."
SPEED = "Speed relative to the base"
PERPLEXITY = "Perplexity on held-out text"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "whitened": ("Whitened SVD", {"ls": "-"}),
    "plain": ("Plain SVD", {"ls": "-"}),
    "user": ("User-supplied (ratio by name)", {"ls": ""}),
}
"""Method -> its legend entry and line style."""


def pareto(results: Results) -> Figure:
    """Perplexity against the speed relative to the base, a panel per comparison of variants, with the Pareto front.

    The line joins the variants that no other variant beats in both; one that is not proven faster than the base counts
    as no faster. Variants without a speed or a perplexity are
    listed below the axes.
    """
    if results.variants["perplexity"].isna().all():
        return message_figure(NO_PERPLEXITY)
    compared = [record for record in results.comparisons if record.question == "variants"]
    placed = {record.trial: _placed(results, record) for record in compared}
    groups = [record for record in compared if len(placed[record.trial])]
    if not groups:
        return message_figure("No comparison of variants has both a perplexity and a speed.")
    groups, left = groups[:PANELS_AT_MOST], len(groups) - PANELS_AT_MOST
    figure, axes = panels(len(groups))
    for panel, record in zip(axes, groups, strict=True):
        _points(panel, results, placed[record.trial])
        engine = short_name(record.candidates[0].engine)
        title = f"{engine}, batch {record.batch}, prompt {record.prompt}, generated {record.generated}"
        panel.set_title(title, fontsize=8, loc="left")
        panel.set_xlabel("\n".join([SPEED, *_missing(results, record, placed[record.trial])]))
    for panel in axes[:: min(len(axes), 2)]:
        panel.set_ylabel(PERPLEXITY)
    names = [name for record in groups for name in placed[record.trial]["variant"]]
    front = Line2D([], [], color=GREY, lw=1.0, ls="-", label="Pareto front")
    legend_below(figure, [*variant_entries(results, names, ls=""), front], title=KEPT)
    notes_on_top(figure, results.machine_note, f"Not drawn: {left} more like these." if left > 0 else "")
    figure.draw_without_rendering()  # labels are placed in the settled layout
    figure.set_layout_engine("none")
    for panel, record in zip(axes, groups, strict=True):
        _label(panel, results, placed[record.trial])
    return figure


def _placed(results: Results, record: ComparisonRecord) -> pd.DataFrame:
    """The candidates of a comparison that have a perplexity, the base first: ratio to it, interval, perplexity."""
    rows = results.speedups[results.speedups["comparison"] == record.trial]
    if rows.empty:
        return rows.assign(perplexity=[])
    base = {"variant": BASE, "ratio": 1.0, "verdict": ""}
    found = pd.concat([pd.DataFrame([base]), rows[["variant", "ratio", "ratio_low", "ratio_high", "verdict"]]])
    found["perplexity"] = found["variant"].map(results.variants.set_index("variant")["perplexity"])
    return found[found["perplexity"].notna()]


def compression(results: Results) -> Figure:
    """What compression loses: each method minus the base, and whitened − plain.

    Against the share of the parameters in the blocks' matrices that is left. Losses in nats per token, paired over the
    held-out windows, with their 95% intervals. Where no ratio has both methods, the second panel is left out.
    """
    variants = results.variants
    known = variants[variants["excess_nats"].notna() & variants["ratio"].notna() & (variants["variant"] != BASE)]
    if known.empty:
        return message_figure(NO_PERPLEXITY if variants["perplexity"].isna().all() else NO_LOSSES)
    known = known.assign(kept=known["reached"].fillna(known["ratio"]))
    between = _whitened_minus_plain(results)
    figure, axes = panels(1 if between.empty else 2, 2.8)
    handles: list[Any] = []
    for number, (method, (label, how)) in enumerate(METHODS.items()):
        group = known[known["method"] == method].sort_values("kept")
        if len(group):
            style = {"color": PALETTE[number], "marker": MARKERS[number], "ms": 4, **how}
            points(axes[0], group["kept"], group["excess_nats"], style, yerr=error_bars(group, "excess_nats"))
            handles.append(Line2D([], [], color=PALETTE[number], marker=MARKERS[number], ms=4, label=label, **how))
    base = results.variants.set_index("variant")["perplexity"].get(BASE)
    axes[0].set_ylabel("Loss minus the base's (nats per token)")
    if len(axes) > 1:
        style = {"color": GREY, "marker": MARKERS[3], "ms": 4}
        points(axes[1], between["ratio"], between["nats"], style, yerr=error_bars(between, "nats"))
        axes[1].set_ylabel("Whitened minus plain (nats per token)")
    for panel in axes:
        panel.grid(axis="y")
        panel.set_axisbelow(True)
        panel.set_xlim(0, max(1.03, 1.03 * known["kept"].max()))
        panel.set_xlabel(KEPT)
        zero = panel.axhline(0, color="black", ls=DASHES, lw=0.9, zorder=1)
    zero.set_label("No difference" if base is None else f"No difference (base: perplexity {base:,.2f})")
    legend_below(figure, [*handles, zero])
    notes_on_top(figure, *_without(variants[variants["excess_nats"].isna()]))
    return figure


def _whitened_minus_plain(results: Results) -> pd.DataFrame:
    """A row per ratio that both methods were scored at: the difference of their losses with its interval."""
    by_method: dict[str, dict[float | None, Manifest]] = {"whitened": {}, "plain": {}}
    for manifest in results.manifests:
        if manifest.method in by_method:
            by_method[manifest.method][manifest.reached or manifest.ratio] = manifest
    rows = [
        (ratio, *loss_difference(whitened, by_method["plain"].get(ratio)))
        for ratio, whitened in by_method["whitened"].items()
    ]
    found = pd.DataFrame(rows, columns=["ratio", "nats", "nats_low", "nats_high"], dtype=np.float64)
    return found.dropna(subset="nats").sort_values("ratio")


def pareto_front(speed: np.ndarray, perplexity: np.ndarray) -> np.ndarray:
    """Indices of the points that no other point beats in both speed and perplexity, by rising speed.

    Of equal points the first is kept.
    """
    order = np.lexsort((perplexity, -speed))
    best = np.minimum.accumulate(np.concatenate([[np.inf], perplexity[order]]))[:-1]
    return order[perplexity[order] < best][::-1]


def _points(axes: Axes, results: Results, group: pd.DataFrame) -> None:
    axes.grid(axis="both")
    axes.set_axisbelow(True)
    speed, perplexity = _coordinates(group)
    faster = (group["verdict"] == Verdict.FASTER).to_numpy()
    front = pareto_front(np.where(faster, speed, np.minimum(speed, 1.0)), perplexity)
    axes.step(speed[front], perplexity[front], where="pre", color=GREY, lw=1.0, zorder=2)
    for variant, trials in by_variant(results, group):
        style = results.styles[variant] | {"ls": "", "ms": 5}
        points(axes, trials["ratio"], trials["perplexity"], style, xerr=error_bars(trials, "ratio"))
    below, above = error_bars(group, "ratio")
    ends = np.concatenate([speed - below, speed + above])
    width = max(float(np.ptp(ends)), 0.02 * float(ends.max()))
    axes.set_xlim(ends.min() - 0.08 * width, ends.max() + 0.2 * width)  # room for labels right of the points
    axes.locator_params(axis="x", nbins=5)
    _room(axes, perplexity)


def _label(axes: Axes, results: Results, group: pd.DataFrame) -> None:
    """Labels every point at its lower right, clear of front and interval; labels that would overlap move down."""
    to_points = 72 / axes.figure.dpi
    highest = float("inf")
    named = zip(group["variant"], *_coordinates(group), strict=True)
    for variant, speed, perplexity in sorted(named, key=lambda place: -place[2]):
        height = float(axes.transData.transform((speed, perplexity))[1]) * to_points
        top = min(height - 2.5, highest)
        highest = top - 1.3 * LABEL_POINTS
        leader = {"arrowstyle": "-", "color": GREY, "lw": 0.4, "shrinkA": 0, "shrinkB": 2, "relpos": (0, 1)}
        axes.annotate(
            results.labels[variant],
            (speed, perplexity),
            xytext=(4, top - height),
            textcoords="offset points",
            fontsize=LABEL_POINTS,
            va="top",
            arrowprops=leader if top < height - 2.5 else None,
            annotation_clip=False,
        ).set_in_layout(False)


def _room(axes: Axes, perplexity: np.ndarray) -> None:
    """A log axis of perplexities with room below for labels."""
    ratio = max(perplexity.max() / perplexity.min(), 1.3)
    axes.set_yscale("log")
    axes.set_ylim(perplexity.min() / ratio**0.16, perplexity.max() * ratio**0.1)
    log_axis(axes)


def _coordinates(group: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return group["ratio"].to_numpy(dtype=np.float64), group["perplexity"].to_numpy(dtype=np.float64)


def _missing(results: Results, record: ComparisonRecord, placed: pd.DataFrame) -> list[str]:
    """Lines that list the variants missing from the axes, and why."""
    lost = [(outcome_label(each.outcome), results.labels[each.name]) for each in record.left_out]
    unscored = [each.name for each in record.candidates if each.name not in set(placed["variant"])]
    return _not_shown([*lost, *(("no perplexity", results.labels[name]) for name in unscored)], 56)


def _without(variants: pd.DataFrame) -> list[str]:
    """Lines that list the variants without a perplexity, and why."""
    why = ["no perplexity" if outcome == "ok" else outcome_label(outcome) for outcome in variants["outcome"]]
    return _not_shown(list(zip(why, variants["variant"], strict=True)), 110)


def _not_shown(named: list[tuple[str, str]], width: int) -> list[str]:
    """Names by reason, in lines of at most `width` characters: `Not shown: OOM: 1 (base), 0.8; timed out: 0.4`."""
    if not named:
        return []
    reasons = {why: ", ".join(name for other, name in named if other == why) for why, _ in named}
    return textwrap.wrap("Not shown: " + "; ".join(f"{why}: {names}" for why, names in reasons.items()), width)
