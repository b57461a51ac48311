"""Records: what a trial found, with its spec and the machine it ran on."""

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from plumbline.core.errors import UserError
from plumbline.core.files import read_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.outcome import SCHEMA, Outcome, OutcomeError, recording_as
from plumbline.core.settings import validated

__all__ = ["REBUILD", "SCHEMA", "AnyRecord", "Number", "Outcome", "OutcomeError", "Record"]
__all__ += ["hardware", "read_record", "recording"]

REBUILD = "delete it to have it rebuilt"


class Record(BaseModel):
    """What every trial's record holds. A study's own model adds its fields and fixes `study` and `stage`.

    NaN and infinities are refused: JSON has no word for them. A number that may be one is a `Number`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    schema_version: Literal[1] = Field(1, alias="schema")
    study: str
    stage: str
    trial: str
    outcome: Outcome
    message: str | None = None
    """Why the outcome is not `ok`."""
    started: str
    """ISO 8601, UTC."""
    seconds: float
    """Wall time of the attempt that wrote the record; `progress.lost_seconds` has the attempts before it."""
    spec: dict[str, Any]
    machine: dict[str, Any]
    device: str | None = None
    """`cpu`, or the GPU's name; None when the trial never reached a device."""

    @property
    def ok(self) -> bool:
        """Whether the outcome is `ok`."""
        return self.outcome is Outcome.OK

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record at `path`. Raises UserError, naming the file and each wrong field, when it is not one of these."""
        values = read_json(path)
        wanted = {name: field.default for name, field in cls.model_fields.items() if name in ("study", "stage")}
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise UserError(f"{path}: is not a record of schema {SCHEMA}; {REBUILD}")
        for name, default in wanted.items():
            if isinstance(default, str) and values.get(name) != default:
                raise UserError(f"{path}: {name} is {values.get(name)!r}, not {default!r}; {REBUILD}")
        try:
            return validated(cls, values, str(path))
        except UserError as error:
            raise UserError(f"{error}; {REBUILD}") from None

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values, as it stands in its file."""
        return self.model_dump(mode="json", by_alias=True)


AnyRecord = TypeVar("AnyRecord", bound=Record)
Number = Annotated[
    float,
    Field(allow_inf_nan=True),
    PlainSerializer(lambda value: value if math.isfinite(value) else str(value), when_used="json"),
]
"""A float that may be non-finite: JSON holds NaN and infinities as the strings `nan`, `inf` and `-inf`."""


def recording(path: Path, model: type[Record], *, trial: str, spec: Spec) -> AbstractContextManager[dict[str, Any]]:
    """A dict to put a trial's findings in; written to `path` as a `model` when the block ends: see `recording_as`."""

    def to_json(values: dict[str, Any]) -> dict[str, Any]:
        return model.model_validate(values).to_json()

    return recording_as(to_json, path, trial=trial, spec=spec.to_json())


def read_record(path: Path) -> dict[str, Any]:
    """The record at `path`, of any study, as JSON values. Raises UserError when it is not a record."""
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UserError(f"{path}: is not a record of schema {SCHEMA}; {REBUILD}")
    return record


def hardware(machine: dict[str, Any], device: str | None) -> str:
    """The hardware that decides a trial's speed: the CPU and its cores, and the accelerator where one was used."""
    cpu = machine.get("cpu_model") or "unknown CPU"
    if cores := machine.get("cores"):
        cpu = f"{cpu}, {cores} cores"
    return cpu if device in (None, "cpu") else f"{cpu} + {device}"
