"""A source is a module with `load(output, **options)`, which writes an adapter store to `output`, whole or not at all.

A user-supplied one is named in the config as `my_lab.sources:load_ours`. A built-in one has a file in this folder and
a block of options in `ablation.settings`.
"""

from pathlib import Path
from typing import Protocol

from plumbline.core import registry

HERE = Path(__file__).parent


class Source(Protocol):
    """Writes a store to `output`. Raises UserError naming the mistake in the data, its place and the fix."""

    def __call__(self, output: Path, /, **options: object) -> None: ...


def source(name: str) -> Source:
    """The source `name`, or the function at `package.module:function`.

    Raises UserError for an unknown name, listing those that exist, or a path that does not exist.
    """
    found: Source = registry.find(name, HERE, __package__, attribute="load", place="ablation.source")
    return found


def names() -> list[str]:
    """The built-in sources, found by their files. Nothing is imported."""
    return registry.names(HERE)
