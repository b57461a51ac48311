"""What a trial's record holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from plumbline.core.run.record import Number, Outcome, Record
from plumbline.core.run.records import read_records

Parameter = bool | int | float | str


class TrialRecord(Record):
    """One trial: its parameters and seed, and what its command or function gave."""

    study: Literal["sweep"] = "sweep"
    stage: Literal["run"] = "run"
    sweep: str
    point: str
    """The point as it is called in paths."""
    parameters: dict[str, Parameter]
    seed: int
    metrics: dict[str, Number] = {}
    """The numbers of metrics.json."""
    info: dict[str, Any] = {}
    """The rest of metrics.json."""
    curves: dict[str, list[Number | None]] = {}
    """Column -> values, one a step; None where a step has none. Of a step that was written twice, the last."""

    @model_validator(mode="after")
    def _has_metrics(self) -> Self:
        if self.outcome is Outcome.OK and not self.metrics:
            raise ValueError("outcome is ok, but there are no metrics")
        return self


def read_trials(paths: Sequence[Path], expected: dict[str, str] | None = None) -> list[TrialRecord]:
    """The records at `paths`. Raises UserError as `read_records` does."""
    return read_records(TrialRecord, paths, expected)
