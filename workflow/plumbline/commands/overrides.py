"""Settings on the command line: `ablation.runs=3`, checked and laid over the config."""

import difflib
import re
import types
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, RootModel

from plumbline import config as configuration
from plumbline.core.errors import UserError

OVERRIDE = re.compile(r"([\w.-]+)=(.*)", re.DOTALL)
Key = str | int


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the words on a command line, the targets and the overrides: a path that holds = is a target."""
    overrides = [word for word in words if OVERRIDE.fullmatch(word)]
    return [word for word in words if word not in overrides], overrides


def merged(paths: Sequence[Path], overrides: Iterable[str]) -> dict[str, Any]:
    """The values in the YAML files `paths`, each laid over the ones before it, and `overrides` over all of them.

    Raises UserError for a key that does not exist, naming the nearest, and for a value that is not YAML.
    """
    values = configuration.read(paths)
    for override in overrides:
        key, _, text = override.partition("=")
        values = _with(values, keys(key, values), _value(key, text))
    return values


def keys(dotted: str, values: Any) -> list[Key]:
    """The keys that `dotted` stands for: those of the config, names that the user gave in `values`, places in lists.

    A name that the user gave may have dots of its own. Raises UserError, naming the nearest key, when there is no such.
    """
    found: list[Key] = []
    kinds: list[Any] = [configuration.Config]
    rest = dotted
    while rest:
        known = [name for kind in kinds for name in _fields(kind)]
        is_free = any(get_origin(kind) is dict for kind in kinds)
        given = [str(name) for name in values] if isinstance(values, dict) else []
        fits = [name for name in (given if is_free else known) if rest == name or rest.startswith(f"{name}.")]
        name = max(fits, key=len, default=rest.partition(".")[0])
        rest = rest[len(name) + 1 :]
        if isinstance(values, list):
            key: Key = _place(name, values, found)
        elif fits or (is_free and not (rest and _is_settings(kinds))):
            key = name
        else:
            raise UserError(_unknown(dotted, [*map(str, found), name], given if is_free else known))
        values = _inside(values, key)
        kinds = [below for kind in kinds for below in _below(kind, key)]
        found.append(key)
    return found


def is_key(word: str, paths: Sequence[Path]) -> bool:
    """Whether `word` is a dotted key of the config in the YAML files `paths`."""
    if not re.fullmatch(r"\w[\w-]*(\.[\w-]+)+", word):
        return False
    try:
        keys(word, configuration.read(paths))
    except UserError:
        return False
    return True


def _with(values: Any, path: Sequence[Key], value: Any) -> Any:
    """A copy of `values` with `value` at `path`; a mapping is merged into the one that is there."""
    if not path:
        both = isinstance(values, dict) and isinstance(value, dict)
        return configuration.deep_merge(values, value) if both else value
    copied = deepcopy(values) if values else {}
    key = path[0]
    copied[key] = _with(_inside(copied, key), path[1:], value)
    return copied


def _inside(values: Any, key: Key) -> Any:
    """What stands under `key` of a mapping or a list; None where there is nothing."""
    if isinstance(key, int):
        return values[key]
    return values.get(key) if isinstance(values, dict) else None


def _value(key: str, text: str) -> Any:
    if not text.strip():
        raise UserError(f"{key}: has no value; write {key}=null, or {key}=\"''\" for an empty text")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{key}: {text!r} is not valid YAML ({getattr(error, 'problem', error)})") from None


def _place(name: str, values: list[Any], path: Sequence[Key]) -> int:
    if not name.isdecimal() or int(name) >= len(values):
        where = ".".join(map(str, path))
        raise UserError(f"{where}.{name}: {where} is a list of {len(values)}; name one by its number from 0")
    return int(name)


def _unknown(dotted: str, path: Sequence[str], known: Sequence[str]) -> str:
    """That the last key of `path` is none of `known`, and which one was meant."""
    *above, name = path
    where = ".".join(above)
    elsewhere = sorted((key for key in all_keys() if key.split(".")[-1] == name), key=lambda key: key.count("."))
    near = difflib.get_close_matches(name, known, n=1) or elsewhere[:1]
    prefix = f"{where}." if where and near and near[0] in known else ""
    if near:
        meant = prefix + near[0]
        whole = meant + dotted.removeprefix(".".join(path))
        return f"{dotted}: no such key; did you mean {whole if whole in all_keys() else meant}?"
    if not known:
        return f"{dotted}: {where} has no keys of its own in the config; give it as a whole: {where}=VALUE"
    return f"{dotted}: no such key (known here: {', '.join(known)})"


def all_keys(kind: Any = None, above: str = "") -> list[str]:
    """Every key of the config, dotted; below a name that the user gives there are none."""
    found = []
    for name, inner in _fields(configuration.Config if kind is None else kind).items():
        found.append(f"{above}{name}")
        for below in _alternatives(inner):
            found += all_keys(below, f"{above}{name}.") if _fields(below) else []
    return found


def _alternatives(kind: Any) -> list[Any]:
    """The types that a value annotated as `kind` may have."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _alternatives(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return [one for part in get_args(kind) for one in _alternatives(part)]
    if isinstance(kind, type) and issubclass(kind, RootModel):
        return _alternatives(kind.model_fields["root"].annotation)
    return [kind]


def _fields(kind: Any) -> dict[str, Any]:
    """Key -> annotation, of a settings class; nothing for another type."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return {}
    return {name: field.annotation for name, field in kind.model_fields.items()}


def _below(kind: Any, key: Key) -> list[Any]:
    """The types of what stands under `key` of a value of type `kind`."""
    if get_origin(kind) in (dict, list):
        return _alternatives(get_args(kind)[-1])
    return _alternatives(_fields(kind)[key]) if key in _fields(kind) else []


def _is_settings(kinds: Iterable[Any]) -> bool:
    """Whether names map to settings here, as sweeps do: then one that is not in the config is a slip of the pen."""
    return any(_fields(below) for kind in kinds if get_origin(kind) is dict for below in _below(kind, ""))
