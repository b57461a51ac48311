"""How an engine computes: what the device has, what the settings say, and for `auto` what proves fastest."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.core.measure.machine import core_count, cpu_flags
from plumbline.core.run.device import memory_errors
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.engines.interface import Choice, Engine
from plumbline.throughput.measurement.timing import clocked, no_garbage_collection
from plumbline.throughput.settings import ChoiceSettings

log = logging.getLogger("plumbline")

CPU_FLAGS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
"""What a processor calls its arithmetic, on x86 and ARM."""
BFLOAT16_CAPABILITY = (8, 0)
COMPILE_SECONDS = 60.0
"""Compiling is tried when `probe_seconds` is at least this."""
PAIRS = 3
MORE_PAIRS, MORE_PAIRS_SHARE = 15, 0.05
"""Short calls are timed more often, while a race takes less than this share of `probe_seconds`."""
WORTH = 0.97
"""A candidate must take less than this share of the time of what it replaces."""


def threads_available() -> int:
    """Threads that a trial may use: OMP_NUM_THREADS, at most one a core; without it as many as there are cores."""
    cores = core_count()
    return min(cores, int(os.environ.get("OMP_NUM_THREADS", cores)))


def native_dtypes(device: torch.device) -> list[str]:
    """Types of numbers that the device computes with by itself."""
    if device.type == "cuda":
        new = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
        return ["float32", "float16", *(["bfloat16"] if new else [])]
    flags = cpu_flags()
    return ["float32", *(dtype for dtype, names in CPU_FLAGS.items() if names & flags)]


def check_dtype(dtype: str, device: torch.device) -> None:
    """Raises UserError for a type of numbers that the device lacks; `auto` is none."""
    there = native_dtypes(device)
    if dtype != "auto" and dtype not in there:
        raise UserError(
            f"throughput.choice.dtype: {device.type} has no {dtype} arithmetic here;"
            f" there are {', '.join(there)}, or auto"
        )


def first_choice(settings: ChoiceSettings, engine: type[Engine]) -> Choice:
    """What is fixed, and for `auto` the usual: float32, the engine's first attention, one thread, no compiling.

    Compiling that makes no difference to the engine is off. Raises OutcomeError for an attention that it does not have.
    """
    attention = engine.attentions[0] if settings.attention == "auto" else settings.attention
    if attention not in engine.attentions:
        there = ", ".join(engine.attentions)
        raise OutcomeError(Outcome.UNAVAILABLE, f"{engine.__name__} has no attention {attention!r}; there are {there}")
    return Choice(
        dtype="float32" if settings.dtype == "auto" else settings.dtype,
        attention=attention,
        threads=1 if settings.threads == "auto" else settings.threads,
        compile=settings.compile == "on" and engine.can_compile,
    )


def alternatives(settings: ChoiceSettings, engine: type[Engine], device: torch.device) -> dict[str, list[Any]]:
    """For each coordinate that is `auto`, in the order of trying, what there is."""
    reduced = "bfloat16" if device.type == "cpu" else "float16"
    there: dict[str, list[Any]] = {}
    if settings.threads == "auto" and device.type == "cpu":
        there["threads"] = sorted({1, threads_available()})
    if settings.attention == "auto":
        there["attention"] = list(engine.attentions)
    if settings.dtype == "auto":
        there["dtype"] = [dtype for dtype in ("float32", reduced) if dtype in native_dtypes(device)]
    if settings.compile == "auto" and engine.can_compile and settings.probe_seconds >= COMPILE_SECONDS:
        there["compile"] = [False, True]
    return {name: values for name, values in there.items() if len(values) > 1}


@dataclass(kw_only=True)
class Contender:
    """A choice on trial."""

    choice: Choice
    equal: bool | None = None
    """Whether its tokens are the reference's; None where it was not tried."""
    note: str = ""
    engine: Engine | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        return median(self.seconds) if self.seconds else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self.choice) | {"seconds": self.median, "equal": self.equal, "note": self.note}


def choose(
    first: Choice,
    coordinates: dict[str, list[Any]],
    make: Callable[[Choice], Engine],
    run: Callable[[Engine], Tensor],
    check: Callable[[Tensor], object],
    synchronise: Callable[[], None],
    probe_seconds: float,
) -> tuple[Choice, list[dict[str, Any]]]:
    """The fastest choice, coordinate by coordinate, and what was tried.

    A candidate is called once to see whether `check` passes its tokens, then in turn with the best so far; it
    replaces that one if its tokens are right and its median is lower by 3%. None is begun after `probe_seconds`, but
    the numbers of threads are tried however long that takes: the wrong one costs more than to try.
    """
    began = time.perf_counter()
    best = _tried(first, make, run, check)
    contenders = [best]
    for name, values in coordinates.items():
        for value in values:
            choice = replace(best.choice, **{name: value})
            if any(choice == known.choice for known in contenders):
                continue
            if name != "threads" and time.perf_counter() - began > probe_seconds:
                contenders.append(Contender(choice=choice, note="not tried: no time left"))
                continue
            candidate = _tried(choice, make, run, check)
            contenders.append(candidate)
            if candidate.equal and best.equal:
                _race(best, candidate, run, synchronise, probe_seconds, began)
            if _wins(candidate, best):
                best, candidate = candidate, best
            _close(candidate)
    _close(best)
    for contender in contenders:
        log.info("probe: %s", contender.as_json())
    return best.choice, [contender.as_json() for contender in contenders]


def _tried(
    choice: Choice, make: Callable[[Choice], Engine], run: Callable[[Engine], Tensor], check: Callable[[Tensor], object]
) -> Contender:
    """A contender after its first call, which is not timed; one that failed is closed."""
    contender = Contender(choice=choice, equal=False)
    torch.set_num_threads(choice.threads)
    try:
        with memory_errors():
            contender.engine = make(choice)
            check(run(contender.engine))
        contender.equal = True
    except OutcomeError as found:
        contender.note = str(found)
    except MemoryError as error:
        contender.note = f"out of memory: {error}"
    if not contender.equal:
        _close(contender)  # it would only take memory from the next
    return contender


def _race(
    best: Contender,
    candidate: Contender,
    run: Callable[[Engine], Tensor],
    synchronise: Callable[[], None],
    probe_seconds: float,
    began: float,
) -> None:
    """Times both in turn, at least once and no further when the time is up."""
    best.seconds = []  # what it took against another is another minute's
    started = time.perf_counter()
    with no_garbage_collection():
        for pair in range(1, MORE_PAIRS + 1):
            for contender in (best, candidate):
                engine = contender.engine
                assert engine is not None
                torch.set_num_threads(contender.choice.threads)
                contender.seconds.append(clocked(partial(run, engine), synchronise))
            now = time.perf_counter()
            enough = pair >= PAIRS and now - started > MORE_PAIRS_SHARE * probe_seconds
            if enough or now - began > probe_seconds:
                break
    candidate.note = f"{median(candidate.seconds) / median(best.seconds):.3f} of the time of the best before it"


def _wins(candidate: Contender, best: Contender) -> bool:
    if not candidate.equal or not best.equal:
        return bool(candidate.equal)
    assert candidate.median is not None
    assert best.median is not None
    return candidate.median < WORTH * best.median


def _close(contender: Contender) -> None:
    if contender.engine is not None:
        contender.engine.close()
        contender.engine = None
