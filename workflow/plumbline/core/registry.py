"""Registries: a folder with a file for each thing a config may name, or `package.module:name` for one's own."""

import importlib
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError


def names(folder: Path) -> list[str]:
    """Names in the registry `folder`, sorted, by its files; nothing is imported."""
    return sorted(file.stem for file in folder.glob("[!_]*.py") if file.stem != "interface")


def module_of(name: str, package: str) -> str:
    """The module that `name` leads to in the registry `package`, or the one that a path `module:name` says."""
    return name.partition(":")[0] if ":" in name else f"{package}.{name}"


def short_name(name: str) -> str:
    """The name in paths and tables: what stands behind the colon of `module:name`."""
    return name.rpartition(":")[2]


def find(name: str, folder: Path, package: str, *, attribute: str | None, place: str) -> Any:
    """What `name` stands for: the attribute of its module in the registry, or what `package.module:name` names.

    `attribute` None is one of the module's own name. `place` is the config's key, for messages. Raises UserError for
    an unknown name, listing those that exist, and for a path that leads nowhere.
    """
    if ":" not in name and name not in names(folder):
        raise UserError(
            f"{place}: {name!r} does not exist; choose from {', '.join(names(folder))}, or name a module:name"
        )
    module = module_of(name, package)
    wanted = name.partition(":")[2] if ":" in name else attribute or name
    try:
        return getattr(importlib.import_module(module), wanted)
    except ModuleNotFoundError as error:
        # A module missing inside the one that is named is its own fault, not the name's.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"{place}: {name}: no module {error.name}; is its folder on PYTHONPATH?") from None
    except AttributeError:
        raise UserError(f"{place}: {name}: {module} has no {wanted}") from None
