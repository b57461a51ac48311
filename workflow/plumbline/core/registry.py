"""Registries: a folder with one file per thing that a config may name; `module:name` names a user-supplied one."""

import importlib
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError


def names(folder: Path) -> list[str]:
    """Names in the registry `folder`, sorted, by its files; nothing is imported."""
    return sorted(file.stem for file in folder.glob("[!_]*.py") if file.stem != "interface")


def module_of(name: str, package: str) -> str:
    """The module of `name` in the registry `package`, or the module part of a path `module:name`."""
    return name.partition(":")[0] if ":" in name else f"{package}.{name}"


def short_name(name: str) -> str:
    """The name in paths and tables: the part after the colon of `module:name`."""
    return name.rpartition(":")[2]


def find(name: str, folder: Path, package: str, *, attribute: str | None, place: str) -> Any:
    """What `name` stands for: the attribute of its module in the registry, or what `package.module:name` names.

    attribute: its name in the registry's module; None: the same as the module's. place: the config key, for messages.
    Raises UserError for an unknown name, listing the known ones, and for a path that cannot be imported.
    """
    if ":" not in name and name not in names(folder):
        raise UserError(
            f"{place}: {name!r} does not exist; choose from {', '.join(names(folder))}, or name one as module:name"
        )
    module = module_of(name, package)
    wanted = name.partition(":")[2] if ":" in name else attribute or name
    try:
        return getattr(importlib.import_module(module), wanted)
    except ModuleNotFoundError as error:
        # A module that is missing inside the named one is not the name's fault.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"{place}: {name}: no module {error.name}; is its directory on PYTHONPATH?") from None
    except AttributeError:
        raise UserError(f"{place}: {name}: {module} has no {wanted}") from None
