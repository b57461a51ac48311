"""One trial, from choosing how to compute to the last number. Runs in a process of its own."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbline.core.measure.machine import describe_machine
from plumbline.core.run.device import device_name, memory_errors, torch_device
from plumbline.core.run.processes import in_child, limit_address_space
from plumbline.core.run.progress import Progress
from plumbline.core.run.record import Outcome, OutcomeError, hardware
from plumbline.core.statistics.rates import rate_interval
from plumbline.throughput.engines.interface import DTYPES, Engine, Shape, load
from plumbline.throughput.grid import Cell
from plumbline.throughput.measurement import agreement, latency, timing
from plumbline.throughput.measurement.autotune import alternatives, autotune, check_dtype, initial_config
from plumbline.throughput.measurement.energy import counters
from plumbline.throughput.measurement.memory import free_bytes, meter
from plumbline.throughput.measurement.prompts import prompts
from plumbline.throughput.measurement.roofline import Limits, decode_step, roofline
from plumbline.throughput.measurement.settings import AutotuneSettings, EngineConfig, TrialTiming
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.record import Batch, Energy, Memory, TriedConfig

log = logging.getLogger("plumbline")
PHASES = 7
"""Autotuning, loading, the first call, warm-up, timing, latency, memory."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a trial measures, and what it needs for that."""

    cell: Cell
    autotune: AutotuneSettings
    timing: TrialTiming
    seed: int
    manifest: Manifest
    reference: Path
    text: Path
    limits: Limits
    device: str
    """auto | cpu | cuda."""

    @property
    def shape(self) -> Shape:
        return Shape(batch=self.cell.batch, prompt=self.cell.prompt, generated=self.cell.generated)


def run(request: Request) -> dict[str, Any]:
    """Outcome, message and findings of a trial, as JSON; of a failed trial, the findings so far."""
    torch.set_num_threads(1)  # further threads start once the process that tunes has been forked
    findings: dict[str, Any] = {}
    outcome, message = Outcome.OK, None
    with Progress(PHASES, "phases") as progress:
        try:
            with memory_errors():
                Trial(request, findings, progress).run()
        except OutcomeError as found:
            outcome, message = found.outcome, str(found)
        except MemoryError as error:
            free = free_bytes(torch.device("cuda" if findings.get("device", "cpu") != "cpu" else "cpu"))
            limit = request.timing.memory_limit_bytes
            within = "" if limit is None else f" within throughput.timing.memory_limit_bytes of {limit:,}"
            message = f"{request.cell.description}: {error}; {free:,} bytes were free{within}"
            outcome = Outcome.OUT_OF_MEMORY
    return {"outcome": outcome.value, "message": message, "findings": findings}


class Trial:
    """A running trial. Its methods are its phases; what they find goes into `findings`, as JSON."""

    def __init__(self, request: Request, findings: dict[str, Any], progress: Progress) -> None:
        self.request, self.findings, self.progress = request, findings, progress
        self.manifest, self.shape, self.timing = request.manifest, request.shape, request.timing
        if self.manifest.shapes is None:
            raise OutcomeError(Outcome.UNAVAILABLE, f"{self.manifest.variant}: its manifest has no shapes")
        self.vocabulary = self.manifest.shapes.vocabulary
        self.reference = agreement.read_reference(request.reference, self.shape)
        self.prompts = prompts(request.text, self.vocabulary, self.shape.batch, self.shape.prompt, request.seed)

    def run(self) -> None:
        """Runs all phases in order."""
        engine_class = load(self.request.cell.engine)
        engine_class.prepare(self.manifest)
        config = self.autotune(engine_class)
        self.device = self._device()
        self.synchronise = timing.synchroniser(self.device)
        self.findings["device"] = device_name(self.device)
        torch.set_num_threads(config.threads)
        self.load(engine_class, config)
        self.call_first()
        with timing.no_garbage_collection():
            self.warm_up()
            self.time()
            self.measure_latency()
        self.measure_memory()
        self.compare_with_limits()
        self.engine.close()

    def autotune(self, engine_class: type[Engine]) -> EngineConfig:
        """How to compute. Tuned in a process of its own, whose memory does not count as the trial's."""
        settings = self.request.autotune
        first = initial_config(settings, engine_class)
        found: dict[str, Any] = {"engine_config": first.model_dump(), "tried_configs": []}
        if "auto" in (settings.dtype, settings.attention, settings.threads, settings.compile):
            try:
                found = in_child(partial(self._autotune, first, engine_class))
            except MemoryError as error:  # two engines did not fit side by side; one of them may
                note = f"out of memory: {error}"
                tried = TriedConfig(**first.model_dump(), seconds=None, equal=None, note=note)
                found["tried_configs"] = [tried.model_dump()]
        self.findings |= found
        self.progress.advance()
        return EngineConfig.model_validate(found["engine_config"])

    def _autotune(self, first: EngineConfig, engine_class: type[Engine]) -> dict[str, Any]:
        device = self._device()
        best, tried = autotune(
            first,
            alternatives(self.request.autotune, engine_class, device),
            make=lambda config: engine_class(self.manifest, device, config, self.shape),
            run=self._generate,
            check=self._check,
            synchronise=timing.synchroniser(device),
            probe_seconds=self.request.autotune.probe_seconds,
        )
        return {"engine_config": best.model_dump(), "tried_configs": [each.model_dump() for each in tried]}

    def load(self, engine_class: type[Engine], config: EngineConfig) -> None:
        """Loads the model."""
        self.config = config
        self.meter = meter(self.device, with_torch=engine_class.allocates_with_torch)
        self.meter.reset()
        before = self.meter.now()

        def load() -> None:
            self.engine = engine_class(self.manifest, self.device, config, self.shape)

        self.findings["load_seconds"] = timing.clocked(load, self.synchronise)
        self.memory = Memory(
            before_load_bytes=before,
            after_load_bytes=self.meter.now(),
            load_peak_bytes=self.meter.peak(),
            method=self.meter.method,
        )
        self.findings["memory"] = self.memory.model_dump()
        self.progress.advance()

    def known_limits(self) -> Limits | None:
        """The limits, if they were measured on the machine and the device that the trial runs on."""
        limits, here = self.request.limits, hardware(describe_machine(), device_name(self.device))
        return limits if hardware(limits.machine, limits.device) == here else None

    def call_first(self) -> None:
        """Runs the first call. Raises OutcomeError when its tokens are wrong."""
        self.findings["cold_call_seconds"] = self._clocked()
        self.tokens = self.last
        if not torch.isfinite(self.engine.logits(self.prompts)).all():
            raise OutcomeError(Outcome.INVALID_OUTPUT, "logits are not finite")
        found = self._check(self.tokens)
        self.findings |= {
            "tokens_sha256": agreement.sha256(self.tokens),
            "reference_sha256": agreement.sha256(self.reference.tokens),
            "rows_equal": found.rows_equal,
            "rows_tied": found.rows_tied,
        }
        self.progress.advance()

    def warm_up(self) -> None:
        """Calls the engine until the calls take equally long."""
        calls = timing.warm_up(self._clocked, self.timing)
        cold = self.findings["cold_call_seconds"]
        if self.config.compile:
            self.findings["compile_seconds"] = max(0.0, cold - min(calls))
        self.findings |= {"warmup_calls": len(calls), "warmup_steady": timing.is_steady(calls)}
        log.info("cold call %.4g s, warm-up %s s", cold, " ".join(f"{seconds:.4g}" for seconds in calls))
        self.progress.advance()

    def time(self) -> None:
        """Times batches. Raises OutcomeError when one of them was wrong, with all of them in the findings."""
        batches: list[Batch] = []
        energy = counters(self.device)
        before = energy.read() if energy else []
        for seconds in timing.time_batches(self._clocked, self.timing):
            tokens, message = self._check_last()
            batches.append(Batch(seconds=seconds, tokens=tokens, ok=message is None, message=message))
            log.info("batch %d: %.6g s, %s", len(batches), seconds, message or "ok")
        after = energy.read() if energy else []
        self.findings["batches"] = [batch.model_dump() for batch in batches]
        self.findings |= speed(batches, self.timing.precision)
        produced = sum(batch.tokens for batch in batches if batch.ok)
        if energy and produced:
            joules = energy.between(before, after)
            used = Energy(method=energy.method, joules=joules, joules_per_token=joules / produced)
            self.findings["energy"] = used.model_dump()
        failed = [batch.message for batch in batches if not batch.ok]
        if failed:
            raise OutcomeError(Outcome.INVALID_OUTPUT, f"{len(failed)} of {len(batches)} batches: {failed[0]}")
        self.progress.advance()

    def measure_latency(self) -> None:
        """Takes the time of each token, in calls of their own."""
        stamps = latency.stamps(partial(self.engine.generate, self.prompts), self.shape, self.synchronise)
        batches = [batch["seconds"] for batch in self.findings["batches"]]
        self.findings |= {**latency.agreement(stamps, batches), **latency.latencies(stamps, self.shape)}
        self.progress.advance()

    def measure_memory(self) -> None:
        """Reads the peak memory of prefill and decode, in a call of its own."""
        first: list[int | None] = []

        def at_token() -> None:
            if not first:
                first.append(self.meter.peak())
                self.meter.reset()

        self.meter.reset()
        self.engine.generate(self.prompts, self.shape.generated, at_token)
        self.synchronise()
        prefill, decode = first[0] if first else None, self.meter.peak()
        known = {"prefill_peak_bytes": prefill, "decode_peak_bytes": decode}
        peaks = [peak for peak in (prefill, decode) if peak is not None]
        if peaks:
            self.findings["peak_bytes"] = max(peaks)
            self.findings["activation_bytes"] = max(peaks) - (self.memory.after_load_bytes or 0)
        if self.meter.method == "torch.cuda":
            known["allocated_peak_bytes"] = max(peaks)
            known["reserved_peak_bytes"] = torch.cuda.max_memory_reserved(self.device)
        self.findings["memory"] |= known
        self.progress.advance()

    def compare_with_limits(self) -> None:
        """Compares what was measured with what the machine can do."""
        found, limits = self.findings, self.known_limits()
        assert self.manifest.shapes is not None
        itemsize = DTYPES[self.config.dtype].itemsize
        try:
            with memory_errors():
                counted = self.engine.count_step(self.prompts, self.shape.generated)
        except MemoryError as error:  # what the trial measured stands
            log.warning("a decode step could not be counted: %s", error)
            counted = None
        step = decode_step(self.engine.weights(), counted, self.manifest.shapes, self.shape, itemsize)
        found |= {"kv_bytes": step.kv_bytes, "least_activation_bytes": step.activation_bytes}
        if self.manifest.parameters is not None:
            found["weights_bytes"] = self.manifest.parameters * itemsize
            if "peak_bytes" in found and step.kv_bytes is not None:
                found["memory_overhead"] = found["peak_bytes"] / (found["weights_bytes"] + step.kv_bytes)
        if not limits:
            elsewhere = hardware(self.request.limits.machine, self.request.limits.device)
            log.warning("the limits were measured on %s, so the trial has no share of a ceiling", elsewhere)
        found |= roofline(
            batch=self.shape.batch,
            step_bytes=step.bytes,
            step_flops=step.flops,
            bandwidth=limits.bytes_per_second(step.bytes, self.config.threads) if limits and step.bytes else None,
            flops=limits.flops_per_second(self.config.dtype, self.config.threads) if limits else None,
            tokens_per_second=found.get("decode_tokens_per_second"),
        )

    def _device(self) -> torch.device:
        """The device. On the CPU, limits this process to `memory_limit_bytes`.

        Raises UserError for a device that does not exist or lacks the dtype.
        """
        device = torch_device(self.request.device)
        check_dtype(self.request.autotune.dtype, device)
        if self.timing.memory_limit_bytes is not None and device.type == "cpu":
            limit_address_space(self.timing.memory_limit_bytes)
        return device

    def _generate(self, engine: Engine) -> Tensor:
        return engine.generate(self.prompts, self.shape.generated)

    def _clocked(self) -> float:
        """Seconds of a call, whose tokens are kept to be checked."""

        def call() -> None:
            self.last = self._generate(self.engine)

        return timing.clocked(call, self.synchronise)

    def _check(self, tokens: Tensor) -> agreement.Agreement:
        return agreement.check_tokens(tokens, self.reference, self.vocabulary, self.request.autotune.tie_margin)

    def _check_last(self) -> tuple[int, str | None]:
        """How many tokens the last call produced, and what is wrong with them, if anything."""
        try:
            if not torch.equal(self.last, self.tokens):  # those have been checked
                self._check(self.last)
        except OutcomeError as found:
            return self.last.numel(), str(found)
        return self.last.numel(), None


def speed(batches: list[Batch], precision: float) -> dict[str, Any]:
    """What the timed batches say, as JSON; tokens, rate and interval are of the batches that are right."""
    good = [batch for batch in batches if batch.ok]
    seconds = [batch.seconds for batch in good]
    tokens = sum(batch.tokens for batch in good)
    found: dict[str, Any] = {
        "successful_batches": len(good),
        "failed_batches": len(batches) - len(good),
        "tokens_generated": tokens,
    }
    if not good:
        return found
    rate = tokens / sum(seconds)
    low, high = rate_interval(np.array([[batch.seconds, batch.tokens] for batch in good]))
    several = len(good) > 1
    return found | {
        "tokens_per_second": rate,
        "interval": [low, high] if several else None,
        "interval_share": (high - low) / 2 / rate if several else None,
        "converged": timing.is_precise(seconds, precision),
        "drift_share": timing.drift(seconds),
        "drifted": timing.has_drifted(seconds, precision),
        "outliers": timing.outliers(seconds),
    }
