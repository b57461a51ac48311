"""A source is a module with `load(output, **options)`, which writes an adapter store at `output`, whole or not at all.

Name `my_lab.sources:load_ours` in the config for one of your own; one that is to stay gets a file in this folder and
a block of options in `ablation.settings`.
"""

import importlib
from pathlib import Path
from typing import Protocol

from plumbline.core.errors import UserError


class Source(Protocol):
    """Writes a store at `output`. Raises UserError naming what is wrong with the data, where, and the way out."""

    def __call__(self, output: Path, /, **options: object) -> None: ...


def source(name: str) -> Source:
    """The source `name`, or the function that a dotted path `package.module:function` names.

    Raises UserError for an unknown name, listing those that exist, or a path that leads nowhere.
    """
    module, _, function = name.partition(":")
    if not function:
        if name not in names():
            raise UserError(
                f"ablation.source: {name!r} is none; there are {', '.join(names())}, or package.module:function"
            )
        module, function = f"{__package__}.{name}", "load"
    try:
        found: Source = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        # A module missing inside the one that is named is its own fault, not the name's.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"ablation.source: {name}: no module {error.name}; is its folder on PYTHONPATH?") from None
    except AttributeError:
        raise UserError(f"ablation.source: {name}: {module} has no {function}") from None
    return found


def names() -> list[str]:
    """The sources in this folder; nothing is imported."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py") if file.stem != "interface")
