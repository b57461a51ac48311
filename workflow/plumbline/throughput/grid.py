"""The grid: which trials the settings ask for. Light to import."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

from plumbline.core.registry import short_name
from plumbline.throughput.settings import BASE, ThroughputSettings, compressed, user_supplied

Question = Literal["variants", "engines"]
REFERENCE_ENGINE = "generate"
"""The engine that the others are compared with, where it is in the grid."""


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


class Contest(NamedTuple):
    """What one comparison compares: cells of one batch and lengths."""

    question: Question
    baseline: Cell
    others: list[Cell]

    @property
    def name(self) -> str:
        """Its name in paths: variants/lean/b1-p4-g32, engines/base/b1-p4-g32."""
        variant, engine, lengths = self.baseline.trial.split("/")
        return f"{self.question}/{engine if self.question == 'variants' else variant}/{lengths}"


def contests(grid: list[Cell]) -> Iterator[Contest]:
    """The comparisons of a grid: its variants with the main engine, and its engines with the base, one per batch."""
    engine = main_engine([cell.engine for cell in grid])
    yield from _contests("variants", [cell for cell in grid if short_name(cell.engine) == engine])
    yield from _contests("engines", [cell for cell in grid if cell.variant == BASE])


def _contests(question: Question, grid: list[Cell]) -> Iterator[Contest]:
    for batch in dict.fromkeys(cell.batch for cell in grid):
        groups: dict[tuple[int, int], list[Cell]] = {}
        for cell in grid:
            if cell.batch == batch:
                groups.setdefault((cell.prompt, cell.generated), []).append(cell)
        group = max(groups.values(), key=len)
        baseline = _baseline(question, group)
        if baseline is not None and len(group) > 1:
            yield Contest(question, baseline, [cell for cell in group if cell != baseline])


def _baseline(question: Question, group: list[Cell]) -> Cell | None:
    """The base; of engines `generate`, or the first by name where that is not among them."""
    if question == "variants":
        return next((cell for cell in group if cell.variant == BASE), None)
    named = {short_name(cell.engine): cell for cell in group}
    return named.get(REFERENCE_ENGINE, named[min(named)])


def main_engine(engines: list[str]) -> str:
    """The short name of the engine with most trials, given the engine of every trial; on a tie, the first of them."""
    return Counter(short_name(engine) for engine in engines).most_common(1)[0][0]


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
