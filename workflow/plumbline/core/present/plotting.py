"""The style of every figure, and how figures are saved: PDF with embedded fonts, PNG at 300 dpi, no dates."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: figures are files, also where no display is

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Annotation

from plumbline.core.files import atomic

WIDTH = 7.2
"""Inches: the text width of a two-column page."""

PALETTE: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
"""Okabe and Ito's colours and Tol's wine: distinguishable with any colour vision, and in print."""

MARKERS = ("o", "s", "^", "D", "v", "P")
GREY, FAULT = "#6E6E6E", "#B00020"
LABEL_POINTS = 6.5

RC = MappingProxyType(
    {
        **sns.axes_style("ticks"),
        "font.family": "DejaVu Sans",  # ships with matplotlib, so the same everywhere
        "font.size": 8.0,
        "axes.titlesize": 9.0,
        "axes.labelsize": 8.0,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "legend.fontsize": 7.5,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "grid.linewidth": 0.5,
        "grid.color": "#E3E3E3",
        "lines.linewidth": 1.2,
        "lines.markersize": 4.5,
        "figure.dpi": 300,  # lay text out at the width it is drawn with
        "savefig.dpi": 300,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "figure.constrained_layout.use": True,
    }
)


@contextmanager
def style() -> Iterator[None]:
    """The style of every figure drawn and saved inside the block; restores matplotlib's settings afterwards."""
    with matplotlib.rc_context(dict(RC)):
        yield


def save(figure: Figure, pdf_path: Path, png_path: Path) -> None:
    """Writes the figure as PDF (fonts embedded) and as 300-dpi PNG, each atomically, and closes it.

    Neither file holds a date, so that the same figure gives the same bytes.
    """
    with style():
        figure.draw_without_rendering()  # settles the layout once for both files
        figure.set_layout_engine("none")
        metadata: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
        for path, kind in ((pdf_path, "pdf"), (png_path, "png")):
            with atomic(path) as partial:
                figure.savefig(partial, format=kind, dpi=300, metadata=metadata[kind])
    plt.close(figure)


def drawable(names: Sequence[str], longest: int = 32) -> list[str]:
    """`names` for labels: shortened in the middle, and `class 3` for the one at place 3 if the font lacks its signs.

    To be drawn with `parse_math=False`, since a name may hold dollar signs.
    """
    font = get_font(findfont(str(RC["font.family"])))
    shown = []
    for place, name in enumerate(names):
        flat = " ".join(name.split())
        if not flat or any(font.get_char_index(ord(sign)) == 0 for sign in flat):
            flat = f"class {place}"
        half = longest // 2
        shown.append(flat if len(flat) <= longest else f"{flat[:half]}…{flat[1 - half :]}")
    return shown


def message_figure(text: str) -> Figure:
    """A figure that only says why there is nothing to draw."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.2))
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, wrap=True)
    return figure


def label_front(
    axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[str], toward: tuple[int, int] = (-1, 1)
) -> list[Annotation]:
    """Labels the points of a front `toward` the corner where nothing is, each label beyond the previous one.

    toward: left (-1) or right (1), and down (-1) or up (1); the upper left, where the front rises to the right. Labels
    are pushed on by their height, so that neither they nor their leader lines cross the front or each other. The
    figure's layout must be final: positions are computed from it.
    """
    side, up = toward
    line = {"arrowstyle": "-", "color": GREY, "lw": 0.4, "shrinkA": 0, "shrinkB": 2, "relpos": (float(side < 0), 0.5)}
    step = LABEL_POINTS * 1.35
    to_points = 72 / axes.figure.dpi
    notes: list[Annotation] = []
    lowest = float("-inf")
    for (x, y), label in sorted(zip(points, labels, strict=True), key=lambda pair: up * pair[0][1]):
        height = up * axes.transData.transform((x, y))[1] * to_points
        lowest = max(height, lowest + step)
        note = axes.annotate(
            label,
            (x, y),
            xytext=(8 * side, up * (lowest - height)),
            textcoords="offset points",
            fontsize=LABEL_POINTS,
            ha="right" if side < 0 else "left",
            va="center",
            arrowprops=line,
            annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
        note.set_in_layout(False)
        notes.append(note)
    return notes
