"""Settings of how trials and comparisons are measured. Light to import."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from plumbline.core.settings import Settings, Switch

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager"]


class AutotuneSettings(Settings):
    """How an engine computes. Every `auto` is tuned in each trial: the fastest option with the right tokens wins."""

    dtype: Literal["auto"] | Dtype = "auto"
    """Dtype to compute in; `auto` tries those that the device supports natively."""
    attention: Literal["auto"] | Attention = "sdpa"
    """Attention implementation: torch's fused kernel (`sdpa`), or separate matmuls and a softmax (`eager`), which is
    what models without a fused kernel always use. Engines with kernels of their own (ctranslate2, llama_cpp, vllm) use
    those."""
    threads: Literal["auto"] | PositiveInt = 1
    """Number of CPU threads."""
    compile: Switch = "auto"
    """Whether to use torch.compile, in engines that support it."""
    probe_seconds: PositiveFloat = 1.5
    """Time budget of tuning, in seconds per trial; compilation is only tried when this is 60 or more."""
    tie_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    """A token may differ from the reference where the reference's two best logits are within this margin."""


class EngineConfig(Settings):
    """How an engine computes, with nothing left to tune."""

    dtype: Dtype
    attention: str
    """`sdpa`, `eager`, or another that the engine offers."""
    threads: int
    compile: bool


class TrialTiming(Settings):
    """When a trial has measured enough, and what it may use."""

    precision: Annotated[float, Field(gt=0, lt=1)] = 0.03
    """Batches are timed until the 95% interval of the rate is within this share of it on both sides."""
    min_batches: Annotated[int, Field(ge=2)] = 8
    """Smallest number of batches to time, however long they take."""
    max_batches: Annotated[int, Field(ge=2)] = 200
    """Largest number of batches to time, however short they are."""
    seconds: PositiveFloat = 0.6
    """Time budget of the timed batches, in seconds, once `min_batches` are timed."""
    warmup_at_most: PositiveInt = 20
    """Largest number of warm-up calls; warm-up ends sooner when three calls in a row are within 5%, or after
    `seconds`."""
    timeout_seconds: PositiveFloat = 600.0
    """A trial that takes longer than this is stopped, with outcome `timeout`."""
    memory_limit_bytes: PositiveInt | None = None
    """Address space that a trial on the CPU may use, in bytes; null sets no limit."""
    skip_larger_after_oom: bool = False
    """Whether to skip larger batches once a smaller one ran out of memory."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min_batches > self.max_batches:
            raise ValueError(f"min_batches ({self.min_batches}) is above max_batches ({self.max_batches})")
        return self


class TimingSettings(TrialTiming):
    """How trials are timed, and whether to search for the largest batch."""

    max_batch: bool = False
    """Whether to search for the largest batch that fits, for each variant, engine and length of the grid."""


class ComparisonSettings(Settings):
    """How candidates are compared: interleaved, round after round in random order, in several processes in turn.

    Compared are the variants with the engine that has most trials, and the engines with the base. Of cells that differ
    only in their lengths one is compared: the one with most candidates, and the first of the grid where several are.
    """

    precision: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Rounds go on until half the 95% interval of every ratio is at most this share."""
    seconds: PositiveFloat = 8.0
    """Time budget of the rounds of one comparison, in seconds."""
    processes: PositiveInt = 4
    """Number of processes that share the time budget. Each loads every candidate again, because memory placement and
    machine state persist within a process. The comparison ends early once three have run and every ratio is precise."""


class LimitsSettings(Settings):
    """How the machine's limits are measured."""

    seconds: PositiveFloat = 0.4
    """Time to spend on each kind of memory access and on each dtype of matmul, in seconds."""
