"""How values and points stand on axes and are written in figures."""

from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes

from plumbline.core.present.formatting import short
from plumbline.core.present.panels import log_axis
from plumbline.sweep.plots.data import Data

CATEGORIES = 12
"""Numbers with more distinct values than these are continuous: dots at their size instead of a label each."""
WIDE = 10.0
"""Values whose largest is at least so many times the smallest stand on a log axis."""


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether values are numbers, which have places of their own."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def is_wide(values: Sequence[Any]) -> bool:
    """Whether numbers want a log axis."""
    return min(values) > 0 and max(values) >= WIDE * min(values)


def places(axes: Axes, values: Sequence[Any], which: Literal["x", "y"] = "x") -> dict[str, float]:
    """Where each value stands on an axis, which is made for them: numbers by size, others side by side."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if is_numeric(values):
        if is_wide(values):
            axes.set(**{f"{which}lim": (min(values) / 1.3, max(values) * 1.3)})
            log_axis(axes, which)
        elif len(values) <= CATEGORIES and all(isinstance(value, int) for value in values):
            axis.set_ticks(list(values))
        return {repr(value): float(value) for value in values}
    axis.set_ticks(range(len(values)), [shown(value) for value in values])
    axes.set(**{f"{which}lim": (-0.5, len(values) - 0.5)})
    return {repr(value): float(place) for place, value in enumerate(values)}


def label(point: str, data: Data) -> str:
    """The point in a sentence, marked where it is the baseline."""
    return plain(data.ranking.labels[point]) + (" (baseline)" if point == data.baseline else "")


def shown(value: Any) -> str:
    """The value as matplotlib draws it."""
    return plain(short(value) if isinstance(value, float) else str(value))


def plain(text: str) -> str:
    """Text as matplotlib draws it, without reading mathematics into dollar signs."""
    return text.replace("$", r"\$")
