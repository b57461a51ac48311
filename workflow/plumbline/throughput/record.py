"""What the study's records hold. Light to import: the stages that write them must not import torch."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from plumbline.core.registry import short_name
from plumbline.core.run.record import Outcome, Record
from plumbline.core.settings import Settings
from plumbline.throughput.measurement.settings import EngineConfig

if TYPE_CHECKING:
    from plumbline.core.measure.interleave import Rounds

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
    tokens: int
    ok: bool
    """Whether the tokens were right."""
    message: str | None
    """Why they were not."""


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
    latency_seconds_ratio: float | None = None
    """Seconds of a call in the token-latency pass ÷ those of a timed batch."""
    latency_agrees: bool | None = None
    """Whether that is within 10% of 1, so that the latencies describe the timed batches."""
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
    least_activation_bytes: int | None = None
    """The least that activations take: the hidden states of the prompt's tokens, and a row of logits in float32."""
    peak_bytes: int | None = None
    activation_bytes: int | None = None
    memory_overhead: float | None = None
    decode_step_bytes: float | None = None
    decode_step_flops: float | None = None
    limit_bandwidth_bytes_per_second: float | None = None
    """Of reading as many bytes as a decode step again and again, with as many threads as the trial."""
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


class ComparedCandidate(Recorded):
    """A candidate of a comparison: what ran, and how it computed."""

    name: str
    """The variant, or the engine, whichever is compared."""
    trial: str
    """The trial of the same cell."""
    variant: str
    engine: str
    engine_config: EngineConfig
    tokens_sha256: str
    rows_equal: int
    rows_tied: int


class LeftOut(Recorded):
    """A candidate without a speed."""

    name: str
    trial: str
    outcome: Outcome
    message: str


Arrangement = Literal["together", "pairs", "reloads"]


class Interleaved(Recorded):
    """Rounds that some candidates took turns in, raw."""

    arrangement: Arrangement
    """`together`: all candidates were loaded in one process. `pairs`: this one shared a process with the baseline
    alone, since memory did not suffice for more. `reloads`: both were loaded again for every turn."""
    names: list[str]
    """The baseline, `control` (the baseline again), and the other candidates."""
    seconds: list[list[float]]
    """Seconds of a call, without those in which it waited for a CPU: a row per round, a column per name."""
    orders: list[list[int]]
    """The order of each round: indices into `names`, first to last."""
    processes: list[int]
    """The process that each round ran in, from 0. Each loaded the candidates anew."""
    precise: bool
    """Whether all intervals were as narrow as asked for before the time was used up."""
    waiting_shares: dict[str, float]
    """Candidate -> share of its calls' wall-clock time that was waiting for a CPU and does not count; 0 where several
    threads computed, or a GPU."""
    niceness: int
    """Of the processes: below 0 where they were allowed a higher priority than others."""

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        widths = {len(row) for row in self.seconds} | {len(row) for row in self.orders}
        heights = {len(self.seconds), len(self.orders), len(self.processes)}
        if widths != {len(self.names)} or len(heights) > 1 or len(self.seconds) < 2:
            raise ValueError("rounds need a column for each name, and at least two rows")
        return self

    def rounds(self) -> "Rounds":
        """The same, to compute with."""
        import numpy as np  # a trial, which needs neither, imports this module

        from plumbline.core.measure.interleave import Rounds

        processes = np.array(self.processes, dtype=np.intp)
        seconds, orders = np.array(self.seconds), np.array(self.orders, dtype=np.intp)
        return Rounds(names=self.names, seconds=seconds, orders=orders, processes=processes, precise=self.precise)


def merged(parts: Sequence[Interleaved], processes: int, precision: float) -> Interleaved:
    """The rounds of several processes as one, with the candidates that all of them had; see `interleave.joined`."""
    from plumbline.core.measure.interleave import joined

    rounds = joined([part.rounds() for part in parts], processes, precision)
    shares = [part.waiting_shares for part in parts]
    return Interleaved(
        arrangement=parts[0].arrangement,
        names=rounds.names,
        seconds=rounds.seconds.tolist(),
        orders=rounds.orders.tolist(),
        processes=rounds.processes.tolist(),
        precise=rounds.precise,
        waiting_shares={name: fmean(each[name] for each in shares) for name in shares[-1]},
        niceness=parts[0].niceness,
    )


class ComparisonRecord(Record):
    """One comparison: its candidates, and the rounds in which they took turns."""

    study: Literal["throughput"] = "throughput"
    stage: Literal["comparison"] = "comparison"
    question: Literal["variants", "engines"]
    model: str
    batch: int
    prompt: int
    generated: int
    baseline: str
    """Name of the candidate that the others are compared with."""
    candidates: list[ComparedCandidate] = []
    """The baseline first."""
    left_out: list[LeftOut] = []
    rounds: list[Interleaved] = []
    """One entry if together, one for each candidate beside the baseline if not."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        compared = {name for part in self.rounds for name in part.names}
        missing = [each.name for each in self.candidates if each.name not in compared]
        if self.ok and (len(self.candidates) < 2 or missing):
            raise ValueError(f"outcome is ok, but no rounds of {', '.join(missing) or 'two candidates'}")
        return self


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
    """Why the next larger batch that was tried did not fit: `out_of_memory`, or `timeout`, or `unavailable` where the
    engine takes no more rows; the latter two say nothing about memory."""
    engine_config: EngineConfig | None = None
    limit_bytes: int | None = None
    weights_bytes: int | None = None
    row_bytes: int | None = None
    estimate: int | None = None
    """The batch that should fit by arithmetic, where the search starts."""
    tried_batches: list[TriedBatch] = []
