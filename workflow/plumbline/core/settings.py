"""Typed settings: what a user may write, checked before any job starts."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    RootModel,
    ValidationError,
)
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from plumbline.core.errors import UserError


class Settings(BaseModel):
    """Base of every settings class: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], place: str) -> Self:
        """`values` as these settings. Raises UserError as `validated` does."""
        return validated(cls, values, place)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return self.model_dump(mode="json")


YAML_SWITCHES = {True: "on", False: "off"}
"""YAML 1.1 reads on, off, yes and no without quotes as booleans."""
Switch = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(lambda value: YAML_SWITCHES[value] if isinstance(value, bool) else value),
]


def expanded(path: str) -> str:
    """`path` with the home folder for a leading ~."""
    home, slash, rest = path.partition("/")
    return f"{Path.home()}{slash}{rest}" if home == "~" else path


FEW = 9
"""Keys that an error lists."""


@dataclass(frozen=True)
class WrittenLike:
    """Annotates a text that must match `pattern`; where it does not, the error gives `examples` in its place."""

    pattern: str
    examples: str

    def check(self, value: Any) -> Any:
        """`value`. Raises ValueError where it is not such a text."""
        if not isinstance(value, str) or re.fullmatch(self.pattern, value) is None:
            raise ValueError(f"write it like {self.examples}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"pattern": f"^{self.pattern}$"}


UserText = Annotated[str, AfterValidator(expanded)]
"""A name or a path in the config, in which ~ is the home folder."""
UserPath = Annotated[Path, AfterValidator(lambda path: Path(expanded(str(path))))]
Model = TypeVar("Model", bound=BaseModel)
Values = TypeVar("Values", bound=Sequence[Any])


def distinct(values: Values) -> Values:
    """`values`. Raises ValueError when one occurs twice."""
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value!r} is named twice")
        seen.add(value)
    return values


def validated(model: type[Model], values: Mapping[str, Any], place: str) -> Model:
    """`values` as a `model`. Raises UserError with one clause for each mistake, each naming the key's full path.

    `place` names where the values came from, e.g. "config" or "--spec".
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"{place}: " + "; ".join(_explain(mistake, model) for mistake in error.errors())) from None


def _explain(mistake: Any, model: type[BaseModel]) -> str:
    loc = [part for part in mistake["loc"] if not str(part).startswith("[")]  # marks of keys, and tags of unions
    path = ".".join(map(str, loc))
    if mistake["type"] == "extra_forbidden":
        return f"{path}: no such key{hint(str(loc[-1]), _keys_at(model, loc[:-1]))}"
    if mistake["type"] == "missing":
        return f"{path}: missing"
    if mistake["type"] == "model_type":
        return f"{path}: is a group of keys, not a single value (given: {mistake['input']!r})"
    message = mistake["msg"].removeprefix("Value error, ")
    given = mistake.get("input")
    shown = "" if isinstance(given, dict) else f" (given: {given!r})"
    return f"{path}: {message}{shown}" if path else message


def hint(name: str, known: Sequence[str]) -> str:
    """The names in `known` that are nearest to a misspelt one, and how many others there are; of a few, all of them."""
    if not known:
        return ""
    near = difflib.get_close_matches(name, known, n=3)
    left = len(known) - len(near)
    rest = f" ({left} other {'key is' if left == 1 else 'keys are'} known here)" if left else ""
    if near:
        return f"; did you mean {' or '.join(near)}?{rest}"
    more = f" and {len(known) - FEW} more" if len(known) > FEW else ""
    return f" (known here: {', '.join(known[:FEW])}{more})"


def _keys_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    is_key = False
    for part in path:
        if isinstance(part, int) or is_key:  # of a list or a dict, whose items' type the annotation gave
            is_key = is_key and isinstance(part, int)
            continue
        is_root = issubclass(model, RootModel)  # where the part itself is the key
        field = model.model_fields.get("root" if is_root else part)
        inner = field.annotation if field else None
        while arguments := get_args(inner):  # list[Model], Model | None, dict[str, Model]
            is_dict = get_origin(inner) is dict
            is_key = is_key or (is_dict and not is_root)
            inner = arguments[1] if is_dict else arguments[0]
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
