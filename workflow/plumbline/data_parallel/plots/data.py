"""What the figures and the notebook draw from: all records, and everything computed from them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from plumbline.core.run.records import machine_note, machines, read_results
from plumbline.core.settings import validated
from plumbline.data_parallel.analysis.frames import epochs_frame, trials_frame
from plumbline.data_parallel.analysis.network import Network, Prediction, fitted
from plumbline.data_parallel.analysis.speedups import Speedup, speedups
from plumbline.data_parallel.record import ComparisonRecord, EqualityRecord, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Data:
    """The records of the study."""

    records: list[TrialRecord]
    equality: EqualityRecord
    comparison: ComparisonRecord
    predictions: list[Prediction]

    @classmethod
    def read(cls, results: Path) -> "Data":
        """The data in the results.json of the stage `summarize`. Raises UserError for any other file."""
        records, merged = read_results(results, TrialRecord)
        return cls(
            records=records,
            equality=validated(EqualityRecord, merged["equality"], str(results)),
            comparison=validated(ComparisonRecord, merged["comparison"], str(results)),
            predictions=[Prediction(**one) for one in merged["predictions"]],
        )

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row per trial, epoch and rank."""
        return epochs_frame(self.records)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per trial."""
        return trials_frame(self.records, self.epochs)

    @cached_property
    def speedups(self) -> list[Speedup]:
        """A candidate of the comparison each."""
        return speedups(self.comparison)

    @cached_property
    def network(self) -> Network | None:
        """The all-reduces' latency and bandwidth; None where nothing was measured."""
        return fitted(self.comparison.all_reduces)

    @property
    def machine_note(self) -> str:
        """A sentence when the trials ran on different machines, otherwise an empty string."""
        return machine_note(machines(self.records))
