"""A plain spec takes what pydantic's strict mode takes, and names the key of what it refuses."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from plumbline.core.errors import UserError
from plumbline.core.run.plain_spec import PlainSpec


@dataclass(frozen=True, kw_only=True)
class Inner:
    file: str = "curves.jsonl"
    step: int


@dataclass(frozen=True, kw_only=True)
class Some(PlainSpec):
    command: str | None
    limit: float | None
    names: list[str]
    values: dict[str, bool | int | float | str]
    inner: Inner


class StrictInner(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    file: str = "curves.jsonl"
    step: int


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    code: str
    inputs: str
    command: str | None
    limit: float | None
    names: list[str]
    values: dict[str, bool | int | float | str]
    inner: StrictInner


GOOD = {"code": "c", "inputs": "i", "command": None, "limit": 2.5, "names": ["a"]}
GOOD |= {"values": {"x": 1, "y": 1.0, "z": True, "t": "1"}, "inner": {"step": 3}}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text("ab", max_size=2),
    lambda of: st.lists(of, max_size=2) | st.dictionaries(st.sampled_from(["x", "file", "step"]), of, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from([*GOOD, "unknown"]), ANY)
def test_it_takes_and_refuses_what_a_strict_model_does(key, value):
    values = GOOD | {key: value}
    try:
        expected = Strict.model_validate(values).model_dump()
    except ValidationError:
        with pytest.raises(UserError, match=rf"^--spec: {key}"):
            Some.from_json(values, "--spec")
    else:
        found = Some.from_json(values, "--spec").to_json()
        assert found == expected
        assert repr(found["values"]) == repr(expected["values"])  # True is not 1, and 1 not 1.0


def test_a_key_that_is_missing_is_named_by_its_path():
    with pytest.raises(UserError, match=r"^--spec: inner\.step: missing$"):
        Some.from_json(GOOD | {"inner": {}}, "--spec")
    with pytest.raises(UserError, match=r"^--spec: command: missing$"):
        Some.from_json({key: value for key, value in GOOD.items() if key != "command"}, "--spec")


def test_a_key_that_is_not_known_is_named_with_those_that_are():
    with pytest.raises(UserError, match=r"^--spec: inner\.steps: no such key \(known here: file, step\)$"):
        Some.from_json(GOOD | {"inner": {"step": 1, "steps": 2}}, "--spec")
