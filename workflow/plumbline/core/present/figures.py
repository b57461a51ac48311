"""The stage that draws a study's figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from plumbline.core.present.plotting import save, style
from plumbline.core.run.progress import track

Tables = TypeVar("Tables")


def draw_figures(
    drawings: Mapping[str, Callable[[Tables], Figure]], names: Sequence[str], tables: Tables, folder: Path
) -> None:
    """Draws each of `names` into `folder`, as `<name>.pdf` and `<name>.png` (300 dpi)."""
    with style():
        for name in track(names, len(names), "figures"):
            save(drawings[name](tables), folder / f"{name}.pdf", folder / f"{name}.png")
