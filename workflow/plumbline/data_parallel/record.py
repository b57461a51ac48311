"""The records of the study: what trials, the proof of equality and the comparison found. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal, Self

from pydantic import Field, model_validator

from plumbline.core.run.record import Number, Outcome, Record
from plumbline.core.run.records import read_records
from plumbline.core.settings import Settings
from plumbline.data_parallel.settings import Scaling


class RankEpoch(Settings):
    """What one rank measured in one epoch: the file `rank{r}_results_epoch{e}.json`."""

    schema_version: Literal[1] = Field(1, alias="schema")
    rank: int
    world: int
    epoch: int
    """From 0."""
    steps: int
    training_time: float
    """Seconds of the epoch's steps, from before the first batch is fetched to the end of the last update."""
    tokens_per_sec: float
    """Tokens of this rank's sequences, without padding, ÷ `training_time`."""
    training_loss: Number
    """Nats per target token over all ranks."""
    validation_loss: Number
    """Nats per target token over all ranks."""
    bleu: float
    """sacrebleu of the translated validation sentences of all ranks, 0 to 100."""
    sequences: int
    tokens: int
    """Tokens of this rank's sequences, without padding."""
    padded_tokens: int
    target_tokens: int
    data_seconds: float
    forward_seconds: float
    backward_seconds: float
    """With the communication in it."""
    communication_seconds: float | None
    """What synchronisation adds to the backward passes, as a few batches that run again with and without it say;
    negative where that is less than the noise. None for a method that cannot go without."""
    optimizer_seconds: float
    control_seconds: float
    """The rest of the steps: agreeing with the other ranks on whether to save or stop."""
    validation_seconds: float
    """Of validating and translating."""
    checkpoint_seconds: float
    """Of checkpoints between steps, without that of the epoch's end."""

    model_config = Settings.model_config | {"populate_by_name": True}


class Translation(Settings):
    """The quality of the translations of one split."""

    sentences: int
    bleu: float
    copied_bleu: float
    """BLEU of the source sentences themselves as translations."""


class TrialRecord(Record):
    """What one trial found. The measurements are None or empty when the outcome is not `ok`."""

    study: Literal["data_parallel"] = "data_parallel"
    stage: Literal["train"] = "train"
    method: str
    scaling: Scaling
    world: int
    batch: int
    """Sequences per step over all ranks."""
    epochs: list[RankEpoch] = []
    """One for each epoch and rank."""
    translations: dict[str, Translation] = {}
    """By split: validation, test, held_out."""
    bleu_signature: str | None = None
    parameters: int | None = None
    weights_sha256: str | None = None
    """Digest of the final weights."""
    wire_bytes_per_step: float | None = None
    """Bytes that each rank sends in a step, by the method's algorithm."""
    memory_bytes: dict[str, int] = {}
    """Of rank 0: weights, gradients, optimizer, and peak_rss or peak_gpu."""
    restarts: int | None = None
    """How often the trial resumed from a checkpoint."""

    @model_validator(mode="after")
    def _trained_trials_have_all_measurements(self) -> Self:
        if self.outcome is Outcome.OK and not (self.epochs and self.translations and self.weights_sha256):
            raise ValueError("epochs, translations or weights are missing, and the outcome is ok")
        return self


class Difference(Settings):
    """How far the parameters of one arrangement are from those of one process."""

    method: str
    world: int
    dtype: Literal["float32", "float64"]
    outcome: Literal["ok", "unavailable"]
    message: str | None = None
    largest: Number | None = None
    """Largest difference of any parameter."""
    bound: float | None = None
    """What the method promises of `largest`; None where it promises nothing for the dtype."""
    relative: Number | None = None
    """Median difference of a parameter over the median of what one process's training changed."""
    relative_bound: float | None = None
    """What the method promises of `relative`; None where it promises nothing."""
    ranks_agree: bool | None = None
    """Whether all ranks hold the same parameters, bit for bit."""
    wire_bytes_per_step: float | None = None
    memory_bytes: dict[str, int] = {}

    @property
    def promise(self) -> str:
        """What the method promises, in words; nothing where there is no promise."""
        shares = [] if self.relative_bound is None else [f"{100 * self.relative_bound:.2g}% in the median"]
        return " and ".join([*([] if self.bound is None else [f"{self.bound:g}"]), *shares])

    @property
    def holds(self) -> bool | None:
        """Whether the promise was kept; None where there was none."""
        pairs = ((self.largest, self.bound), (self.relative, self.relative_bound))
        kept = [found <= bound for found, bound in pairs if found is not None and bound is not None]
        return all(kept) and bool(self.ranks_agree) if kept else None


class EqualityRecord(Record):
    """The proof that methods and worlds compute what one process does."""

    study: Literal["data_parallel"] = "data_parallel"
    stage: Literal["equality"] = "equality"
    steps: int | None = None
    differences: list[Difference] = []


class Turns(Settings):
    """One candidate of the comparison."""

    name: str
    method: str | None
    """None where ranks do not talk to each other."""
    world: int
    scaling: Literal["strong", "weak", "independent", "threads"]
    tokens: int
    """Tokens of one turn, without padding, over all ranks: the work that a ratio is per."""
    seconds: list[float]
    """Per token, one a round."""


class AllReduce(Settings):
    """Times of all-reduces of one size among so many ranks."""

    world: int
    bytes: int
    seconds: list[float]


class ComparisonRecord(Record):
    """How fast worlds and methods are against each other. The first candidate is the baseline, the second its copy."""

    study: Literal["data_parallel"] = "data_parallel"
    stage: Literal["comparison"] = "comparison"
    candidates: list[Turns] = []
    orders: list[list[int]] = []
    """In each round, the candidates' places in the list above in the order of their turns."""
    launches: list[int] = []
    """In each round, which launch of the ranks it belongs to, from 0."""
    precise: bool | None = None
    parameters: int | None = None
    batch: int | None = None
    """Sequences per step of one process."""
    step_tokens: int | None = None
    all_reduces: list[AllReduce] = []
    waited_percent: list[float] = []
    """In each round, the share of the independent processes' turn in which rank 0 was ready to run and other processes
    had the cores, from /proc/self/schedstat; empty where the system does not say."""

    @property
    def busy_percent(self) -> float | None:
        """The median of `waited_percent`; None where the system does not say."""
        return median(self.waited_percent) if self.waited_percent else None


def read_trials(paths: Sequence[Path], expected: dict[str, str] | None = None) -> list[TrialRecord]:
    """The records at `paths`, sorted by world, scaling and method. Raises UserError as `read_records` does."""
    found = read_records(TrialRecord, paths, expected)
    return sorted(found, key=lambda record: (record.world, record.scaling, record.method))
