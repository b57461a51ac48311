"""The record of a trial, and all records of the study in reading order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from plumbline.ablation.analysis.labels import LAYERS, REPRESENTATIONS, VIEWS
from plumbline.ablation.classifier.packed import Packed, unpack
from plumbline.ablation.classifier.result import RunResult
from plumbline.ablation.classifier.splits import ratio_of_sides
from plumbline.ablation.settings import Classifier, View
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
    labels: Packed
    """The class of each adapter."""
    groups: Packed
    """The group of each adapter: those of one group share training images."""
    adapters: AdapterSource
    runs: list[RunResult] = []
    """Of each classifier in turn. Empty when the trial did not get as far as training."""
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
        packed = [self.labels, self.groups, *(run.predicted for run in self.good_runs if run.predicted)]
        if any(len(unpack(text)) != self.rows for text in packed):
            raise ValueError(f"labels, groups and predicted must have a number for each of the {self.rows} adapters")
        return self

    @property
    def good_runs(self) -> list[RunResult]:
        """The runs that did not diverge, of all classifiers."""
        return [run for run in self.runs if run.outcome is Outcome.OK]

    @property
    def classifiers(self) -> list[Classifier]:
        """The classifiers that the trial trains, in the grid's order."""
        return list(self.spec["classifier"])

    def good_runs_of(self, classifier: str) -> list[RunResult]:
        """The runs of a classifier that did not diverge."""
        return [run for run in self.good_runs if run.classifier == classifier]


def test_over_train(runs: Sequence[RunResult]) -> float:
    """Test rows over training rows of runs, as `ratio_of_sides`."""
    return ratio_of_sides([np.flatnonzero(run.predictions >= 0) for run in runs], [run.train_rows for run in runs])


def are_copies(runs: Sequence[RunResult]) -> bool:
    """Whether runs are one run over again: one split and no random part, so that they are one sample and not many."""
    found = [run.model_dump(exclude={"seed", "seconds"}) for run in runs]
    return len(found) > 1 and all(found[0] == other for other in found[1:])


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
