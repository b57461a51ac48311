"""What the study's records hold. Light to import: the stages that write them must not import torch."""

from typing import Any, Literal, Self

from pydantic import model_validator

from plumbline.core.registry import short_name
from plumbline.core.run.record import Outcome, Record
from plumbline.core.settings import Settings
from plumbline.throughput.settings import EngineConfig

REQUIRED_WHEN_OK = ("device", "engine_config", "tokens_per_second")


class Recorded(Settings, allow_inf_nan=False):
    """Part of a record."""


class TriedConfig(EngineConfig, allow_inf_nan=False):
    """A configuration that autotuning tried."""

    seconds: float | None
    """Median seconds of a call against the best so far; None where it was not timed."""
    equal: bool | None
    """Whether its tokens are the reference's; None where it was not run."""
    note: str


class Batch(Recorded):
    """A timed call."""

    seconds: float
    pace_seconds: float
    """Seconds of the fixed piece of work: the slower of the runs just before and just after the call."""
    tokens: int
    ok: bool
    """Whether the tokens were right."""
    message: str | None
    """Why they were not."""
    counts: bool
    """Whether rate and interval include the batch."""


class Memory(Recorded):
    """Memory in use in each phase, in bytes; None where the system does not tell."""

    before_load_bytes: int | None
    after_load_bytes: int | None
    load_peak_bytes: int | None
    prefill_peak_bytes: int | None = None
    decode_peak_bytes: int | None = None
    method: str | None
    """VmHWM | torch.cuda."""
    reserved_peak_bytes: int | None = None
    allocated_peak_bytes: int | None = None


class Energy(Recorded):
    """Energy used by the timed batches."""

    method: str
    """RAPL | NVML."""
    joules: float
    joules_per_token: float


class TrialRecord(Record):
    """A trial: its place in the grid, and what it measured. What a failed trial did not reach is None or empty."""

    study: Literal["throughput"] = "throughput"
    stage: Literal["measure"] = "measure"
    model: str
    variant: str
    method: str | None
    ratio: float | None
    weights: str | None
    engine: str
    batch: int
    prompt: int
    generated: int
    attempts: int = 0
    engine_config: EngineConfig | None = None
    tried_configs: list[TriedConfig] = []
    load_seconds: float | None = None
    cold_call_seconds: float | None = None
    compile_seconds: float | None = None
    warmup_calls: int | None = None
    warmup_steady: bool | None = None
    fastest_pace_seconds: float | None = None
    slowed: bool | None = None
    """Whether too few batches ran at the machine's full speed, so that none was discarded."""
    slowed_batches: int | None = None
    batches: list[Batch] = []
    successful_batches: int | None = None
    """Batches with the right tokens."""
    failed_batches: int | None = None
    tokens_generated: int | None = None
    tokens_per_second: float | None = None
    interval: tuple[float, float] | None = None
    """Bootstrap 95% interval of `tokens_per_second`."""
    interval_share: float | None = None
    """Half the interval's width, as a share of the rate."""
    converged: bool | None = None
    drift_share: float | None = None
    drifted: bool | None = None
    outliers: int | None = None
    latency_slowed: bool | None = None
    time_to_first_token_seconds: float | None = None
    time_per_output_token_seconds: float | None = None
    inter_token_seconds: list[float] = []
    inter_token_p50_seconds: float | None = None
    inter_token_p90_seconds: float | None = None
    inter_token_p99_seconds: float | None = None
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    memory: Memory | None = None
    weights_bytes: int | None = None
    kv_bytes: int | None = None
    peak_bytes: int | None = None
    activation_bytes: int | None = None
    memory_overhead: float | None = None
    decode_step_bytes: float | None = None
    decode_step_flops: float | None = None
    limit_bandwidth_bytes_per_second: float | None = None
    limit_flops_per_second: float | None = None
    mbu: float | None = None
    mfu: float | None = None
    ceiling_tokens_per_second: float | None = None
    ceiling_share: float | None = None
    binds: Literal["bandwidth", "compute"] | None = None
    """Which limit sets the ceiling."""
    energy: Energy | None = None
    tokens_sha256: str | None = None
    reference_sha256: str | None = None
    rows_equal: int | None = None
    rows_tied: int | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [name for name in REQUIRED_WHEN_OK if getattr(self, name) is None]
        missing += [] if self.batches else ["batches"]
        if self.ok and missing:
            raise ValueError(f"outcome is ok, but {', '.join(missing)} is missing")
        return self

    @property
    def engine_name(self) -> str:
        """The engine as it is called in paths and tables."""
        return short_name(self.engine)

    def config_value(self, name: str) -> Any:
        """A value of the engine's configuration; None where the trial did not get as far as choosing one."""
        return getattr(self.engine_config, name, None)


class TriedBatch(Recorded):
    """A batch size that the search for the largest one tried."""

    batch: int
    fits: bool
    outcome: Outcome
    peak_bytes: int | None
    seconds: float
    message: str | None


class MaxBatchRecord(Record):
    """The largest batch that fits into memory, for one variant, engine and length."""

    study: Literal["throughput"] = "throughput"
    stage: Literal["max_batch"] = "max_batch"
    variant: str
    engine: str
    prompt: int
    generated: int
    largest: int | None = None
    bound: Outcome | None = None
    """Why the next larger batch that was tried did not fit: `out_of_memory`, or `timeout`, which says nothing about
    memory."""
    engine_config: EngineConfig | None = None
    limit_bytes: int | None = None
    weights_bytes: int | None = None
    row_bytes: int | None = None
    estimate: int | None = None
    """The batch that should fit by arithmetic, where the search starts."""
    tried_batches: list[TriedBatch] = []
