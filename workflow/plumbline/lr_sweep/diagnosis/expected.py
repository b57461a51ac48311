"""What this machine can do, measured now: a replay of a trial's step, and the speed of a large matrix product."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean

import torch
from torch import nn

from plumbline.core.run.device import memory_errors
from plumbline.core.training.adamw import AdamW
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.settings import ModelSettings, TrainingSettings
from plumbline.lr_sweep.training.allocator import keep_freed_memory
from plumbline.lr_sweep.training.model import Transformer, flops_per_token

MEASUREMENT_SECONDS = 0.5
MIN_STEPS, MAX_STEPS = 5, 200
WARM_UP_STEPS = 3
RATE = 1e-4
LONGEST_STEP_SECONDS = 0.5
"""A step that would take longer is measured with a smaller batch and scaled up."""
PRODUCT_SIZE = {"cpu": 768, "cuda": 8192}
"""Size of the square matrices whose product defines the ceiling."""


@dataclass(frozen=True)
class _StepConfig:
    """Everything that decides the speed of a step."""

    model: ModelSettings
    training: TrainingSettings
    threads: int
    dtype: str
    device: str
    bf16: bool
    tf32: bool
    fused: bool


class StepReplay:
    """Replays optimizer steps on cached data. Each configuration is measured once, until `budget_seconds` are spent.

    The seconds of a step are a mean, total time over steps, like a trial's. On a single CPU thread CPU time counts, so
    trials that are still running do not make it look slow.
    """

    def __init__(self, budget_seconds: float = 20.0) -> None:
        self._deadline = time.monotonic() + budget_seconds
        self._steps: dict[_StepConfig, float | None] = {}
        self._ceilings: dict[tuple[str, str, int, bool, bool], float] = {}

    def step_seconds(self, trial: TrialEvidence) -> float | None:
        """Seconds of one eager step of the trial's model.

        None when the trial ran on another machine, or when the device, memory or time for a replay is lacking.
        """
        config = _config_of(trial)
        if not _can_run(trial, config):
            return None
        if config not in self._steps:
            self._steps[config] = self._measure(config) if time.monotonic() < self._deadline else None
        return self._steps[config]

    def ceiling(self, trial: TrialEvidence) -> float | None:
        """Floating-point operations per second of a large matrix product with the trial's settings."""
        config = _config_of(trial)
        return self._ceiling(config) if _can_run(trial, config) else None

    def _ceiling(self, config: _StepConfig) -> float:
        key = config.device, config.dtype, config.threads, config.bf16, config.tf32
        if key not in self._ceilings:
            size = PRODUCT_SIZE[torch.device(config.device).type]
            dtype = torch.bfloat16 if config.bf16 else getattr(torch, config.dtype)
            with _set_up(config):
                matrix = torch.randn(size, size, device=config.device).to(dtype)
                seconds = min(_repeat(lambda: matrix @ matrix, config, 0.2))
            self._ceilings[key] = 2 * size**3 / seconds
        return self._ceilings[key]

    def _measure(self, config: _StepConfig) -> float | None:
        whole = config.training.batch
        predicted = flops_per_token(config.model) * whole * config.model.context / self._ceiling(config)
        batch = max(1, int(whole * min(1.0, LONGEST_STEP_SECONDS / predicted)))
        if predicted * batch / whole > 10 * LONGEST_STEP_SECONDS:
            return None
        try:
            with _set_up(config), memory_errors():
                return _replay(config, batch)
        except MemoryError:
            return None


def _config_of(trial: TrialEvidence) -> _StepConfig:
    return _StepConfig(
        model=trial.model,
        training=trial.training,
        threads=trial.threads,
        dtype=trial.dtype,
        device="cpu" if trial.device == "cpu" else "cuda",
        bf16=trial.uses("bf16"),
        tf32=trial.uses("tf32"),
        fused=trial.uses("fused"),
    )


def _can_run(trial: TrialEvidence, config: _StepConfig) -> bool:
    return trial.is_local and (config.device == "cpu" or torch.cuda.is_available())


def _replay(config: _StepConfig, batch: int) -> float:
    """Seconds of a step at the configured batch: forward and backward scaled up from `batch`, plus the optimizer."""
    keep_freed_memory()  # as a trial does
    model = Transformer(config.model).to(config.device, getattr(torch, config.dtype))
    training = config.training
    optimizer = AdamW(
        model.parameters(),
        beta1=training.beta1,
        beta2=training.beta2,
        weight_decay=training.weight_decay,
        fused=config.fused,
        spare_vectors=True,
    )
    tokens = torch.randint(config.model.vocabulary, (batch, config.model.context + 1), device=config.device)

    def gradients() -> None:
        optimizer.clear()
        with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.bf16):
            loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()

    def update() -> None:
        nn.utils.clip_grad_norm_(optimizer.weights, training.clip)
        optimizer.step(RATE)

    def step() -> None:
        gradients()
        update()

    whole = mean(_repeat(step, config, MEASUREMENT_SECONDS))
    if batch == training.batch:
        return whole
    passes = mean(_repeat(gradients, config, MEASUREMENT_SECONDS))
    return passes * training.batch / batch + max(0.0, whole - passes)


def _repeat(work: Callable[[], object], config: _StepConfig, seconds: float) -> list[float]:
    """Seconds of each of several calls of `work`, after a warm-up."""
    clock = time.process_time if config.device == "cpu" and config.threads == 1 else time.perf_counter
    samples: list[float] = []
    began = time.monotonic()
    for call in range(WARM_UP_STEPS + MAX_STEPS):
        start = clock()
        work()
        if config.device != "cpu":
            torch.cuda.synchronize()
        if call >= WARM_UP_STEPS or time.monotonic() - began > 4 * seconds:
            samples.append(clock() - start)
        if len(samples) >= MIN_STEPS and time.monotonic() - began > seconds:
            break
        if samples and time.monotonic() - began > 8 * seconds:
            break
    return samples


@contextmanager
def _set_up(config: _StepConfig) -> Iterator[None]:
    """Sets threads, TF32 and the random state for the measurement, and restores them afterwards."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
