"""The grid: which trials the settings ask for. Light to import."""

import itertools
from typing import NamedTuple

from plumbline.core.registry import short_name
from plumbline.throughput.settings import BASE, ThroughputSettings, compressed, user_supplied


class Cell(NamedTuple):
    """A trial's place in the grid."""

    variant: str
    engine: str
    batch: int
    prompt: int
    generated: int

    @property
    def trial(self) -> str:
        """The trial's name in paths: base/lean/b1-p4-g32."""
        return f"{self.variant}/{short_name(self.engine)}/b{self.batch}-p{self.prompt}-g{self.generated}"

    @property
    def description(self) -> str:
        """What the trial asks for, for messages."""
        return f"batch {self.batch}, prompt {self.prompt}, generated {self.generated}"


def cells(settings: ThroughputSettings) -> list[Cell]:
    """The grid's cells, each once, in the order of its blocks."""
    found: dict[Cell, None] = {}
    for block in settings.grid:
        names = measured(settings) if block.variants is None else block.variants
        for values in itertools.product(names, block.engines, block.batch, block.prompt, block.generated):
            found[Cell(*values)] = None
    return list(found)


def measured(settings: ThroughputSettings) -> list[str]:
    """Variants of a block that names none: the base, the compressions by the first method, and user-supplied ones."""
    first = settings.variants.methods[0]
    by_first = [name for name, (method, _) in compressed(settings).items() if method == first]
    base = [BASE] if 1.0 in settings.variants.ratios else []
    return [*base, *by_first, *user_supplied(settings)]


def smaller(cell: Cell, grid: list[Cell]) -> Cell | None:
    """The cell with the next smaller batch and all else equal; None where there is none."""
    alike = [other for other in grid if other._replace(batch=cell.batch) == cell and other.batch < cell.batch]
    return max(alike, key=lambda other: other.batch, default=None)
