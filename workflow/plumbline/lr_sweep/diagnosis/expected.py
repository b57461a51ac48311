"""What this machine can do, measured now: a replay of the trial's own step, and the ceiling of a matrix product."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean

import torch
from torch import nn

from plumbline.core.run.device import memory_errors
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.settings import ModelSettings, TrainingSettings
from plumbline.lr_sweep.training.adamw import AdamW
from plumbline.lr_sweep.training.allocator import keep_freed_memory
from plumbline.lr_sweep.training.model import Transformer, flops_per_token

SECONDS_A_MEASUREMENT = 0.5
LEAST_STEPS, MOST_STEPS = 5, 200
WARM_UP_STEPS = 3
RATE = 1e-4
LONGEST_STEP_SECONDS = 0.5
"""A step that would take longer is measured with a smaller batch, and scaled."""
PRODUCT_SIZE = {"cpu": 768, "cuda": 8192}
"""Of the square matrices whose product is the ceiling."""


@dataclass(frozen=True)
class _Way:
    """How a step is run."""

    model: ModelSettings
    training: TrainingSettings
    threads: int
    dtype: str
    device: str
    bf16: bool
    tf32: bool
    fused: bool


class StepProbe:
    """Replays optimizer steps with cached data. Every way is measured once, until `budget_seconds` are spent.

    A step's seconds are a mean, as those seen of a trial are: all time over all steps. On one CPU thread its CPU time
    counts, so that trials which still run do not make it look slow.
    """

    def __init__(self, budget_seconds: float = 20.0) -> None:
        self._deadline = time.monotonic() + budget_seconds
        self._steps: dict[_Way, float | None] = {}
        self._ceilings: dict[tuple[str, str, int, bool, bool], float] = {}

    def step_seconds(self, trial: TrialEvidence) -> float | None:
        """Seconds of one eager step of the trial's model.

        None: it ran on another machine, the device is not here, memory or the time there is does not suffice.
        """
        way = _way(trial)
        if not _can_run(trial, way):
            return None
        if way not in self._steps:
            self._steps[way] = self._measure(way) if time.monotonic() < self._deadline else None
        return self._steps[way]

    def ceiling(self, trial: TrialEvidence) -> float | None:
        """Floating-point operations a second of a large square matrix product, run as the trial runs."""
        way = _way(trial)
        return self._ceiling(way) if _can_run(trial, way) else None

    def _ceiling(self, way: _Way) -> float:
        key = way.device, way.dtype, way.threads, way.bf16, way.tf32
        if key not in self._ceilings:
            size = PRODUCT_SIZE[torch.device(way.device).type]
            dtype = torch.bfloat16 if way.bf16 else getattr(torch, way.dtype)
            with _set_up(way):
                matrix = torch.randn(size, size, device=way.device).to(dtype)
                seconds = min(_repeat(lambda: matrix @ matrix, way, 0.2))
            self._ceilings[key] = 2 * size**3 / seconds
        return self._ceilings[key]

    def _measure(self, way: _Way) -> float | None:
        whole = way.training.batch
        predicted = flops_per_token(way.model) * whole * way.model.context / self._ceiling(way)
        batch = max(1, int(whole * min(1.0, LONGEST_STEP_SECONDS / predicted)))
        if predicted * batch / whole > 10 * LONGEST_STEP_SECONDS:
            return None
        try:
            with _set_up(way), memory_errors():
                return _replay(way, batch)
        except MemoryError:
            return None


def _way(trial: TrialEvidence) -> _Way:
    return _Way(
        model=ModelSettings.model_validate(dict(trial.model)),
        training=TrainingSettings.model_validate(dict(trial.training)),
        threads=trial.threads,
        dtype=trial.dtype,
        device="cpu" if trial.device == "cpu" else "cuda",
        bf16=trial.chose("bf16"),
        tf32=trial.chose("tf32"),
        fused=trial.chose("fused"),
    )


def _can_run(trial: TrialEvidence, way: _Way) -> bool:
    return trial.is_here and (way.device == "cpu" or torch.cuda.is_available())


def _replay(way: _Way, batch: int) -> float:
    """Seconds of a step at the way's batch: forward and backward scaled from `batch`, plus the optimizer."""
    keep_freed_memory()  # as a trial does
    model = Transformer(way.model).to(way.device, getattr(torch, way.dtype))
    training = way.training
    optimizer = AdamW(
        model.parameters(),
        beta1=training.beta1,
        beta2=training.beta2,
        weight_decay=training.weight_decay,
        fused=way.fused,
    )
    tokens = torch.randint(way.model.vocabulary, (batch, way.model.context + 1), device=way.device)

    def gradients() -> None:
        optimizer.clear()
        with torch.autocast(torch.device(way.device).type, torch.bfloat16, enabled=way.bf16):
            loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()

    def update() -> None:
        nn.utils.clip_grad_norm_(optimizer.weights, training.clip)
        optimizer.step(RATE)

    def step() -> None:
        gradients()
        update()

    whole = mean(_repeat(step, way, SECONDS_A_MEASUREMENT))
    if batch == training.batch:
        return whole
    alone = mean(_repeat(gradients, way, SECONDS_A_MEASUREMENT))
    return alone * training.batch / batch + max(0.0, whole - alone)


def _repeat(work: Callable[[], object], way: _Way, seconds: float) -> list[float]:
    """Seconds of each of several calls of `work`, after a warm-up."""
    clock = time.process_time if way.device == "cpu" and way.threads == 1 else time.perf_counter
    samples: list[float] = []
    began = time.monotonic()
    for call in range(WARM_UP_STEPS + MOST_STEPS):
        start = clock()
        work()
        if way.device != "cpu":
            torch.cuda.synchronize()
        if call >= WARM_UP_STEPS or time.monotonic() - began > 4 * seconds:
            samples.append(clock() - start)
        if len(samples) >= LEAST_STEPS and time.monotonic() - began > seconds:
            break
        if samples and time.monotonic() - began > 8 * seconds:
            break
    return samples


@contextmanager
def _set_up(way: _Way) -> Iterator[None]:
    """Threads, TF32 and the random state as the way wants them, and afterwards as they were."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(way.threads)
    torch.set_float32_matmul_precision("high" if way.tf32 else "highest")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
