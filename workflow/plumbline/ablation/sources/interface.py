"""A source is a module with `load(output, **options)`, which writes an adapter store at `output`, whole or not at all.

Name `my_lab.sources:load_ours` in the config for one of your own; one that is to stay gets a file in this folder and
a block of options in `ablation.settings`.
"""

from pathlib import Path
from typing import Protocol

from plumbline.core import registry

HERE = Path(__file__).parent


class Source(Protocol):
    """Writes a store at `output`. Raises UserError naming what is wrong with the data, where, and the way out."""

    def __call__(self, output: Path, /, **options: object) -> None: ...


def source(name: str) -> Source:
    """The source `name`, or the function that a path `package.module:function` names.

    Raises UserError for an unknown name, listing those that exist, or a path that leads nowhere.
    """
    found: Source = registry.find(name, HERE, __package__, attribute="load", place="ablation.source")
    return found


def names() -> list[str]:
    """The sources in this folder; nothing is imported."""
    return registry.names(HERE)
