"""Specs of stages that must start fast: checked as Settings are, without pydantic, whose import takes 0.09 s."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, Self, get_args, get_origin, get_type_hints

from plumbline.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PlainSpec:
    """What `Spec` is, as a dataclass: a subclass adds fields of JSON's types, lists and dicts of them, dataclasses."""

    code: str
    """Digest of the code that the stage reaches."""
    inputs: str
    """Digest over the specs of the targets it reads."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any], place: str) -> Self:
        """`values` as a spec. Raises UserError that names the first wrong key by its path, as `validated` does."""
        found: Self = _checked(cls, values, f"{place}: ", "")
        return found

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON values."""
        return asdict(self)


def _checked(kind: Any, value: Any, place: str, path: str) -> Any:
    """`value`, as JSON gave it, as a `kind`."""
    inner, arguments = f"{path}." if path else "", get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
        for name in value.keys() - known.keys():
            raise UserError(f"{place}{inner}{name}: no such key (known here: {', '.join(known)})")
        for name, field in known.items():
            if name not in value and field.default is MISSING:
                raise UserError(f"{place}{inner}{name}: missing")
        given = {name: _checked(hints[name], item, place, inner + name) for name, item in value.items()}
        return kind(**given)  # type: ignore[operator]
    if get_origin(kind) is list and isinstance(value, list):
        return [_checked(arguments[0], item, place, f"{inner}{number}") for number, item in enumerate(value)]
    if get_origin(kind) is dict and isinstance(value, dict):
        return {name: _checked(arguments[1], item, place, inner + name) for name, item in value.items()}
    allowed = arguments or (kind,)
    if type(value) is int and int not in allowed and float in allowed:
        return float(value)
    if get_origin(kind) in (list, dict) or type(value) not in allowed:
        shown = kind.__name__ if isinstance(kind, type) and not arguments else kind
        raise UserError(f"{place}{path + ': ' if path else ''}must be {shown} (given: {value!r})")
    return value
