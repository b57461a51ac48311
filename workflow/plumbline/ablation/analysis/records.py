"""The record of a trial, and all records of the study in reading order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from plumbline.ablation.analysis.labels import LAYERS, REPRESENTATIONS, VIEWS
from plumbline.ablation.classifier.result import RunResult
from plumbline.ablation.settings import View
from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome, Record
from plumbline.core.run.records import read_records

_ORDER = (*VIEWS, *LAYERS, *REPRESENTATIONS)


class AdapterSource(BaseModel):
    """Where the adapters came from: what the source wrote to the store's manifest, whichever keys that has."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    skipped: int
    """Adapters that could not be read and were left out."""


class TrialRecord(Record):
    """What stage `ablation.train` records."""

    study: Literal["ablation"] = "ablation"
    stage: Literal["train"] = "train"
    view: View
    layers: str
    representation: str
    classes: list[str] = Field(min_length=1)
    rows: int
    """Adapters in the store."""
    adapters: AdapterSource
    runs: list[RunResult] = []
    """Empty when the trial did not get as far as training."""
    feature_width: int | None = None
    """Columns of the features."""
    feature_width_used: int | None = None
    """Columns that vary over the training rows of the first run."""
    layer_count: int | None = None
    """Factors (factor view) or modules (product view) that the features describe."""
    feature_seconds: float | None = None
    """Wall time of computing the features over all layers, which all layer sets share."""

    @model_validator(mode="after")
    def _ok_has_scores(self) -> Self:
        if self.ok and not self.good_runs:
            raise ValueError("outcome is ok, but no run is")
        return self

    @property
    def good_runs(self) -> list[RunResult]:
        """The runs that did not diverge."""
        return [run for run in self.runs if run.outcome is Outcome.OK]


def ordered_records(paths: Sequence[Path], expected: Mapping[str, str] | None = None) -> list[TrialRecord]:
    """The records at `paths`, sorted by view, layer set and representation. Raises UserError as `read_records` does,
    and when the trials have different classes, since their accuracies are then not comparable.
    """
    records = read_records(TrialRecord, paths, expected)
    if len({tuple(record.classes) for record in records}) > 1:
        raise UserError("ablation: the records have different classes; summarize one data set at a time")
    keys = {record.trial: (record.view, record.layers, record.representation) for record in records}
    return sorted(records, key=lambda record: [_rank(name) for name in keys[record.trial]])


def _rank(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)
