"""How an engine computes: what the device supports, what the settings fix, and for `auto` what proves fastest."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.core.measure.machine import core_count, cpu_flags
from plumbline.core.run.device import memory_errors, omp_threads
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.engines.interface import BUILT_IN, Engine
from plumbline.throughput.measurement.settings import AutotuneSettings, EngineConfig
from plumbline.throughput.measurement.timing import clocked, no_garbage_collection
from plumbline.throughput.record import TriedConfig

log = logging.getLogger("plumbline")

CPU_FLAGS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
"""CPU flags of native arithmetic in each dtype, on x86 and ARM."""
BFLOAT16_CAPABILITY = (8, 0)
COMPILE_SECONDS = 60.0
"""Compilation is tried when `probe_seconds` is at least this."""
PAIRS = 3
MORE_PAIRS, MORE_PAIRS_SHARE = 15, 0.05
"""Short calls are timed more often, while a comparison takes less than this share of `probe_seconds`."""
REPLACES_BELOW = 0.97
"""A candidate replaces the best so far if it takes less than this share of its time."""


def threads_available() -> int:
    """Threads that a trial may use: OMP_NUM_THREADS, at most one per core; one per core where that is not set."""
    cores = core_count()
    return min(cores, omp_threads() or cores)


def native_dtypes(device: torch.device) -> list[str]:
    """Dtypes that the device computes in natively."""
    if device.type == "cuda":
        new = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
        return ["float32", "float16", *(["bfloat16"] if new else [])]
    flags = cpu_flags()
    return ["float32", *(dtype for dtype, names in CPU_FLAGS.items() if names & flags)]


def check_dtype(dtype: str, device: torch.device) -> None:
    """Raises UserError for a dtype that the device does not compute in natively; `auto` is always fine."""
    native = native_dtypes(device)
    if dtype != "auto" and dtype not in native:
        raise UserError(
            f"throughput.autotune.dtype: this {device.type} has no {dtype} arithmetic;"
            f" use one of {', '.join(native)}, or auto"
        )


def initial_config(settings: AutotuneSettings, engine: type[Engine]) -> EngineConfig:
    """What the settings fix, and for `auto` the default: float32, the engine's first attention, one thread, no compile.

    `compile` is off for engines that cannot; an engine with kernels of its own has its own attention. Raises
    OutcomeError for an attention that the engine does not have.
    """
    is_chosen = settings.attention == "auto" or engine.attentions == BUILT_IN
    attention = engine.attentions[0] if is_chosen else settings.attention
    if attention not in engine.attentions:
        known = ", ".join(engine.attentions)
        raise OutcomeError(Outcome.UNAVAILABLE, f"{engine.__name__} has no attention {attention!r}; it has {known}")
    return EngineConfig(
        dtype="float32" if settings.dtype == "auto" else settings.dtype,
        attention=attention,
        threads=1 if settings.threads == "auto" else settings.threads,
        compile=settings.compile == "on" and engine.can_compile,
    )


def alternatives(settings: AutotuneSettings, engine: type[Engine], device: torch.device) -> dict[str, list[Any]]:
    """The values to try for each field of EngineConfig that is `auto`, in the order of trying."""
    reduced = "bfloat16" if device.type == "cpu" else "float16"
    found: dict[str, list[Any]] = {}
    if settings.threads == "auto" and device.type == "cpu":
        found["threads"] = sorted({1, threads_available()})
    if settings.attention == "auto":
        found["attention"] = list(engine.attentions)
    if settings.dtype == "auto":
        found["dtype"] = [dtype for dtype in ("float32", reduced) if dtype in native_dtypes(device)]
    if settings.compile == "auto" and engine.can_compile and settings.probe_seconds >= COMPILE_SECONDS:
        found["compile"] = [False, True]
    return {name: values for name, values in found.items() if len(values) > 1}


@dataclass(kw_only=True)
class Candidate:
    """A configuration while it is tuned."""

    config: EngineConfig
    equal: bool | None = None
    """Whether its tokens are the reference's; None where it was not run."""
    note: str = ""
    engine: Engine | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        return median(self.seconds) if self.seconds else None

    def tried(self) -> TriedConfig:
        """What the record keeps of it."""
        return TriedConfig(**self.config.model_dump(), seconds=self.median, equal=self.equal, note=self.note)


def autotune(
    first: EngineConfig,
    values_by_name: dict[str, list[Any]],
    make: Callable[[EngineConfig], Engine],
    run: Callable[[Engine], Tensor],
    check: Callable[[Tensor], object],
    synchronise: Callable[[], None],
    probe_seconds: float,
) -> tuple[EngineConfig, list[TriedConfig]]:
    """The fastest configuration, found by coordinate descent from `first`, and everything that was tried.

    A candidate runs once to see whether `check` accepts its tokens, then in alternation with the best so far. It
    replaces that one if its tokens are right and its median is lower by 3%. No candidate starts after `probe_seconds`,
    except that thread counts are always tried: the wrong one costs more than trying.
    """
    began = time.perf_counter()
    best = _run_once(first, make, run, check)
    candidates = [best]
    for name, values in values_by_name.items():
        for value in values:
            config = best.config.model_copy(update={name: value})
            if any(config == known.config for known in candidates):
                continue
            if name != "threads" and time.perf_counter() - began > probe_seconds:
                candidates.append(Candidate(config=config, note="not tried: no time left"))
                continue
            candidate = _run_once(config, make, run, check)
            candidates.append(candidate)
            if candidate.equal and best.equal:
                _time_in_turn(best, candidate, run, synchronise, probe_seconds, began)
            if _is_better(candidate, best):
                best, candidate = candidate, best
            _close(candidate)
    _close(best)
    tried = [candidate.tried() for candidate in candidates]
    for each in tried:
        log.info("autotune: %s", each)
    return best.config, tried


def _run_once(
    config: EngineConfig,
    make: Callable[[EngineConfig], Engine],
    run: Callable[[Engine], Tensor],
    check: Callable[[Tensor], object],
) -> Candidate:
    """A candidate after its first call, which is not timed; one that failed is closed."""
    candidate = Candidate(config=config, equal=False)
    torch.set_num_threads(config.threads)
    try:
        with memory_errors():
            candidate.engine = make(config)
            check(run(candidate.engine))
        candidate.equal = True
    except OutcomeError as found:
        candidate.note = str(found)
    except MemoryError as error:
        candidate.note = f"out of memory: {error}"
    if not candidate.equal:
        _close(candidate)  # it would only hold memory that the next one needs
    return candidate


def _time_in_turn(
    best: Candidate,
    candidate: Candidate,
    run: Callable[[Engine], Tensor],
    synchronise: Callable[[], None],
    probe_seconds: float,
    began: float,
) -> None:
    """Times both in alternation, at least once, and stops when the time is up."""
    best.seconds = []  # earlier times were taken under other conditions
    started = time.perf_counter()
    with no_garbage_collection():
        for pair in range(1, MORE_PAIRS + 1):
            for each in (best, candidate):
                engine = each.engine
                assert engine is not None
                torch.set_num_threads(each.config.threads)
                each.seconds.append(clocked(partial(run, engine), synchronise))
            now = time.perf_counter()
            enough = pair >= PAIRS and now - started > MORE_PAIRS_SHARE * probe_seconds
            if enough or now - began > probe_seconds:
                break
    candidate.note = f"{median(candidate.seconds) / median(best.seconds):.3f} of the time of the best before it"


def _is_better(candidate: Candidate, best: Candidate) -> bool:
    if not candidate.equal or not best.equal:
        return bool(candidate.equal)
    assert candidate.median is not None
    assert best.median is not None
    return candidate.median < REPLACES_BELOW * best.median


def _close(candidate: Candidate) -> None:
    if candidate.engine is not None:
        candidate.engine.close()
        candidate.engine = None
