"""Figures of decoding: time and bytes per token of every variant."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plumbline.core.present.panels import DASHES, legend_below, log_axis, panels
from plumbline.core.present.plotting import GREY, MARKERS, PALETTE, message_figure
from plumbline.disaggregation.analysis.decode import Cell
from plumbline.disaggregation.settings import CAPTURE, FEATURES, FULL, GENERATE, LOCAL, SENDING

BESIDE_LOCAL = (GENERATE, CAPTURE, *SENDING)


def latency(found: Sequence[Cell]) -> Figure:
    """Time per token over that of local, with its interval, by the variant: a panel a link, a colour a context."""
    return _ratios(found, BESIDE_LOCAL, LOCAL)


def features(found: Sequence[Cell]) -> Figure:
    """Time per token of `full` without one feature over that of `full`: a panel a link, a colour a context."""
    return _ratios(found, tuple(FEATURES.values()), FULL)


def _ratios(found: Sequence[Cell], names: Sequence[str], base: str) -> Figure:
    figure, axes = _panels(found)
    names = _measured(found, names)
    for panel, link in zip(axes, _links(found), strict=True):
        for number, (places, part) in enumerate(_by_context(found, link, names)):
            both = [one.against_local if base == LOCAL else one.against_full for one in part]
            ratios = [ratio for ratio in both if ratio is not None]
            values = np.array([ratio.value for ratio in ratios])
            ends = np.array([[ratio.low, ratio.high] for ratio in ratios]).T
            lengths = np.abs(np.nan_to_num(ends - values, nan=0.0))
            panel.errorbar(
                places,
                values,
                yerr=lengths,
                fmt=MARKERS[number % len(MARKERS)],
                color=PALETTE[number % len(PALETTE)],
                capsize=2,
            )
        panel.axhline(1.0, color=GREY, linestyle=DASHES, linewidth=0.8)
        panel.set_ylabel(f"Time per token ÷ {base}")
        log_axis(panel)
        _name_ways(panel, link, names)
    _legend(figure, found)
    return figure


def traffic(found: Sequence[Cell]) -> Figure:
    """Bytes per token, both ways, by the variant: a panel a link, a colour a context. Gaps: they cannot be counted."""
    figure, axes = _panels(found)
    names = _measured(found, SENDING)
    for panel, link in zip(axes, _links(found), strict=True):
        for number, (places, part) in enumerate(_by_context(found, link, names)):
            sizes = [np.nan if one.bytes_per_token is None else one.bytes_per_token for one in part]
            panel.plot(places, sizes, MARKERS[number % len(MARKERS)], color=PALETTE[number % len(PALETTE)])
        panel.set_ylabel("Bytes per token")
        log_axis(panel)
        _name_ways(panel, link, names)
    _legend(figure, found)
    return figure


def _panels(found: Sequence[Cell]) -> tuple[Figure, list[Axes]]:
    return panels(len(_links(found))) if found else (message_figure("No block has a result."), [])


def _measured(found: Sequence[Cell], names: Sequence[str]) -> list[str]:
    """Those of `names` that have a result anywhere."""
    return [name for name in names if name in {one.name for one in found}]


def _links(found: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(one.link for one in found))


def _contexts(found: Sequence[Cell]) -> list[int]:
    return sorted({one.context for one in found})


def _by_context(found: Sequence[Cell], link: str, names: Sequence[str]) -> list[tuple[list[float], list[Cell]]]:
    """For each context its cells in the order of `names`, and where each is drawn; those not measured leave a gap."""
    contexts = _contexts(found)
    groups = []
    for number, context in enumerate(contexts):
        own = {one.name: one for one in found if (one.link, one.context) == (link, context)}
        offset = 0.16 * (number - (len(contexts) - 1) / 2)
        places = [place + offset for place, name in enumerate(names) if name in own]
        groups.append((places, [own[name] for name in names if name in own]))
    return groups


def _name_ways(panel: Axes, link: str, names: Sequence[str]) -> None:
    panel.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=35, ha="right")
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.grid(axis="y")
    panel.set_title(link)


def _legend(figure: Figure, found: Sequence[Cell]) -> None:
    handles = [
        Line2D([], [], marker=MARKERS[number % len(MARKERS)], color=PALETTE[number % len(PALETTE)], linestyle="")
        for number in range(len(_contexts(found)))
    ]
    for handle, context in zip(handles, _contexts(found), strict=True):
        handle.set_label(f"prompt of {context} tokens")
    legend_below(figure, handles)
