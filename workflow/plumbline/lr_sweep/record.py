"""The record of a trial: its losses, its arithmetic, and where its time went. Imports neither torch nor pandas."""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from plumbline.core.run.record import Number, Outcome, Record
from plumbline.core.run.records import read_records
from plumbline.core.settings import Settings


class Stability(StrEnum):
    """How a run ended. A NaN alone does not define divergence: with clipping, hopeless rates stay finite."""

    CONVERGED = "converged"
    SPIKED = "spiked"
    """The loss jumped above its moving window and recovered."""
    PLATEAUED = "plateaued"
    """The final loss is no better than the unigram entropy: the model learned only how often each token occurs."""
    DIVERGED = "diverged"
    """A loss was not finite, or the final loss is above the initial one."""


CLASSES = tuple(str(stability) for stability in Stability)


class SwitchDecision(Settings):
    """The decision on one switch of the arithmetic (bf16, tf32, fused, compile), and the measurements behind it."""

    asked: Literal["auto", "on", "off"]
    chosen: bool
    why: str
    off_seconds: float | None = None
    """Time of the probe without the switch; None, here and below, when it was not measured."""
    on_seconds: float | None = None
    relative_error: Number | None = None
    probe_tokens: int | None = None
    run_seconds: float | None = None
    """Predicted time of the whole run without compiling."""
    compile_seconds: float | None = None
    saved_seconds: float | None = None


class Curve(Settings):
    """Validation losses in nats per token, and the steps after which they were measured."""

    step: list[int]
    validation_loss: list[Number]


class TrialRecord(Record):
    """What one trial found. The measurements are None or empty when it has no loss, for instance out of memory."""

    study: Literal["lr_sweep"] = "lr_sweep"
    stage: Literal["train"] = "train"
    rate: float
    seed: int
    stability: Stability | None = Field(None, alias="class")
    class_reason: str | None = None
    spikes: int | None = None
    largest_z: Number | None = None
    final_validation_loss: Number | None = None
    """Nats per token, as all losses."""
    best_validation_loss: Number | None = None
    initial_validation_loss: Number | None = None
    final_train_loss: Number | None = None
    unigram_entropy_nats: float | None = None
    steps: int | None = None
    tokens: int | None = None
    validation_windows: int | None = None
    tokens_per_second: float | None = None
    """Over the training steps; validation, checkpoints and logging are left out."""
    parameters: int | None = None
    flops_per_token: int | None = None
    flops_formula: str | None = None
    spans: dict[str, float] = {}
    """Seconds of the training loop by span; they add up to `wall_seconds`."""
    wall_seconds: float | None = None
    peak_rss_bytes: int | None = None
    peak_gpu_bytes: int | None = None
    precision: dict[str, SwitchDecision] = {}
    compiler: dict[str, int] = {}
    dtype: str | None = None
    threads: int | None = None
    restarts: int | None = None
    """How often the trial resumed from a checkpoint."""
    train_losses: list[Number] = []
    grad_norms: list[Number] = []
    curve: Curve | None = None

    @property
    def trained(self) -> bool:
        """Whether the trial has a loss, even a diverged one; False when it ran out of memory or time."""
        return self.outcome in (Outcome.OK, Outcome.DIVERGED)

    @model_validator(mode="after")
    def _trained_trials_have_all_measurements(self) -> Self:
        optional = Record.model_fields.keys() | {"peak_gpu_bytes", "compiler"}
        measured = TrialRecord.model_fields.keys() - optional
        missing = sorted(name for name in measured if getattr(self, name) in (None, {}, []))
        if self.trained and missing:
            raise ValueError(f"{', '.join(missing)}: missing, and the outcome is {self.outcome}")
        return self


def read_trials(paths: Sequence[Path], expected: Mapping[str, str] | None = None) -> list[TrialRecord]:
    """The records at `paths`, sorted by rate and seed. Raises UserError as `read_records` does."""
    return sorted(read_records(TrialRecord, paths, expected), key=lambda record: (record.rate, record.seed))


def or_nan(value: float | None) -> float:
    """The number, NaN for None."""
    return math.nan if value is None else value
