"""One trial, from the choice of how to compute to the last figure; runs in a process of its own."""

import logging
from dataclasses import asdict, dataclass
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
from plumbline.core.run.record import Outcome, OutcomeError, machine_name
from plumbline.core.statistics.rates import rate_interval
from plumbline.throughput.engines.interface import DTYPES, Choice, Engine, Shape, load
from plumbline.throughput.measurement import agreement, latency, timing
from plumbline.throughput.measurement import autotune as choosing
from plumbline.throughput.measurement.energy import counters
from plumbline.throughput.measurement.memory import free_bytes, meter
from plumbline.throughput.measurement.pace import Batch, Pace, time_batches, which_count
from plumbline.throughput.measurement.prompts import prompts
from plumbline.throughput.measurement.roofline import decode_step, roofline
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.settings import Cell, ChoiceSettings, TrialTiming

log = logging.getLogger("plumbline")
PHASES = 7
"""Choosing, loading, the first call, warming up, timing, each token, memory."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a trial measures, and what it needs for that."""

    cell: Cell
    choice: ChoiceSettings
    timing: TrialTiming
    seed: int
    manifest: Manifest
    reference: Path
    text: Path
    limits: dict[str, Any]
    """What the stage `limits` wrote."""
    device: str
    """auto | cpu | cuda."""

    @property
    def shape(self) -> Shape:
        return Shape(batch=self.cell.batch, prompt=self.cell.prompt, generated=self.cell.generated)


def run(request: Request) -> dict[str, Any]:
    """Outcome, message and findings of a trial; of one that did not end well, the findings so far."""
    torch.set_num_threads(1)  # threads come when the process that probes has been made
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
            outcome, message = Outcome.OUT_OF_MEMORY, f"{request.cell.shown}: {error}; {free:,} bytes were free{within}"
    return {"outcome": outcome.value, "message": message, "findings": findings}


def prepared(device: str, choice: ChoiceSettings, memory_limit_bytes: int | None) -> torch.device:
    """The device, ready to be used by this process: with the type of numbers asked for, within the limit of memory.

    Raises UserError for a device that is not there or lacks the type.
    """
    found = torch_device(device)
    choosing.check_dtype(choice.dtype, found)
    if memory_limit_bytes is not None and found.type == "cpu":
        limit_address_space(memory_limit_bytes)
    return found


class Trial:
    """A trial under way; its methods are its phases, and what they find goes into `findings`."""

    def __init__(self, request: Request, findings: dict[str, Any], progress: Progress) -> None:
        self.request, self.findings, self.progress = request, findings, progress
        self.manifest, self.shape, self.timing = request.manifest, request.shape, request.timing
        if self.manifest.shapes is None:
            raise OutcomeError(Outcome.UNAVAILABLE, f"{self.manifest.variant}: its manifest says nothing of its shapes")
        self.vocabulary = self.manifest.shapes.vocabulary
        self.reference = agreement.read_reference(request.reference, self.shape)
        self.prompts = prompts(request.text, self.vocabulary, self.shape.batch, self.shape.prompt, request.seed)

    def run(self) -> None:
        """All phases, in their order."""
        engine_class = load(self.request.cell.engine)
        engine_class.prepare(self.manifest)
        choice = self.choose(engine_class)
        self.device = prepared(self.request.device, self.request.choice, self.timing.memory_limit_bytes)
        self.synchronise = timing.synchroniser(self.device)
        self.findings["device"] = device_name(self.device)
        torch.set_num_threads(choice.threads)
        self.load(engine_class, choice)
        self.call_first()
        with timing.no_garbage_collection():
            self.warm_up()
            self.time()
            self.follow()
        self.weigh()
        self.compare()
        self.engine.close()

    def choose(self, engine_class: type[Engine]) -> Choice:
        """How to compute, found out in a process of its own: what it takes would count in this one's memory."""
        settings = self.request.choice
        first = choosing.first_choice(settings, engine_class)
        found: dict[str, Any] = {"choice": asdict(first), "probe": []}
        if "auto" in (settings.dtype, settings.attention, settings.threads, settings.compile):
            try:
                found = in_child(partial(self._probe, first, engine_class))
            except MemoryError as error:  # two engines at once did not fit; whether one does is seen next
                found["probe"] = [asdict(first) | {"seconds": None, "equal": None, "note": f"out of memory: {error}"}]
        self.findings |= found
        self.progress.advance()
        return Choice(**found["choice"])

    def _probe(self, first: Choice, engine_class: type[Engine]) -> dict[str, Any]:
        device = prepared(self.request.device, self.request.choice, self.timing.memory_limit_bytes)
        best, probe = choosing.choose(
            first,
            choosing.alternatives(self.request.choice, engine_class, device),
            make=lambda choice: engine_class(self.manifest, device, choice, self.shape),
            run=self._generate,
            check=self._check,
            synchronise=timing.synchroniser(device),
            probe_seconds=self.request.choice.probe_seconds,
        )
        return {"choice": asdict(best), "probe": probe}

    def load(self, engine_class: type[Engine], choice: Choice) -> None:
        """Loads the model."""
        limits = self.limits_known()
        fastest = limits["pace_seconds"].get(str(choice.threads)) if limits else None
        self.pace = Pace(self.device, choice.threads, fastest)
        self.meter = meter(self.device)
        self.meter.reset()
        before = self.meter.now()

        def load() -> None:
            self.engine = engine_class(self.manifest, self.device, choice, self.shape)

        self.findings["load_seconds"] = timing.clocked(load, self.synchronise)
        self.findings["memory"] = {
            "before_load_bytes": before,
            "after_load_bytes": self.meter.now(),
            "load_peak_bytes": self.meter.peak(),
            "prefill_peak_bytes": None,
            "decode_peak_bytes": None,
            "method": self.meter.method,
            "reserved_peak_bytes": None,
            "allocated_peak_bytes": None,
        }
        self.progress.advance()

    def limits_known(self) -> dict[str, Any] | None:
        """The limits, where they are of the machine and the device that the trial runs on."""
        here = machine_name({"machine": describe_machine(), "device": device_name(self.device)})
        return self.request.limits if machine_name(self.request.limits) == here else None

    def call_first(self) -> None:
        """The first call. Raises OutcomeError when its tokens are not what they must be."""
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
        """Calls until they take the same time."""
        calls = timing.warm_up(self._clocked, self.timing)
        cold = self.findings["cold_call_seconds"]
        if self.findings["choice"]["compile"]:
            self.findings["compile_seconds"] = max(0.0, cold - min(calls))
        self.findings |= {"warmup_calls": len(calls), "warmup_steady": timing.is_steady(calls)}
        log.info("cold call %.4g s, warm-up %s s", cold, " ".join(f"{seconds:.4g}" for seconds in calls))
        self.progress.advance()

    def time(self) -> None:
        """The timed batches. Raises OutcomeError when one of them was wrong, with all of them in the findings."""
        batches: list[dict[str, Any]] = []
        timed: list[Batch] = []
        energy = counters(self.device)
        before = energy.read() if energy else []
        for batch in time_batches(self._clocked, self.pace, self.timing):
            timed.append(batch)
            batches.append({**batch._asdict(), **self._looked_at()})
            words = (batch.seconds, 1e6 * batch.pace_seconds, batches[-1]["message"] or "ok")
            log.info("batch %d: %.6g s, pace %.4g us, %s", len(batches), *words)
        after = energy.read() if energy else []
        slowed, counts = which_count(timed, self.pace, self.timing)
        batches = [batch | {"counts": each} for batch, each in zip(batches, counts, strict=True)]
        found = {"fastest_pace_seconds": self.pace.fastest, "slowed": slowed}
        found["slowed_batches"] = len(timed) - len(self.pace.at_full(timed, self.timing.pace_tolerance))
        self.findings |= {"batches": batches, **found, **speed(batches, self.timing.precision)}
        produced = sum(batch["tokens"] for batch in batches if batch["ok"])
        if energy and produced:
            joules = energy.between(before, after)
            self.findings["energy"] = {"method": energy.method, "joules": joules, "joules_per_token": joules / produced}
        failed = [batch["message"] for batch in batches if not batch["ok"]]
        if failed:
            raise OutcomeError(Outcome.INVALID_OUTPUT, f"{len(failed)} of {len(batches)} batches: {failed[0]}")
        self.progress.advance()

    def follow(self) -> None:
        """A pass of its own in which each token's time is taken."""
        generate, tolerance = partial(self.engine.generate, self.prompts), self.timing.pace_tolerance
        stamps, slowed = latency.stamps(generate, self.shape, self.synchronise, self.pace, tolerance)
        self.findings |= {"latency_slowed": slowed, **latency.latencies(stamps, self.shape)}
        self.progress.advance()

    def weigh(self) -> None:
        """A pass of its own in which memory is looked at."""
        first: list[int | None] = []

        def at_token() -> None:
            if not first:
                first.append(self.meter.peak())
                self.meter.reset()

        self.meter.reset()
        self.engine.generate(self.prompts, self.shape.generated, at_token)
        self.synchronise()
        prefill, decode = first[0] if first else None, self.meter.peak()
        memory = self.findings["memory"]
        memory |= {"prefill_peak_bytes": prefill, "decode_peak_bytes": decode}
        peaks = [peak for peak in (prefill, decode) if peak is not None]
        if peaks:
            self.findings["peak_bytes"] = max(peaks)
            self.findings["activation_bytes"] = max(peaks) - memory["after_load_bytes"]
        if self.device.type == "cuda":
            memory["allocated_peak_bytes"] = max(peaks)
            memory["reserved_peak_bytes"] = torch.cuda.max_memory_reserved(self.device)
        self.progress.advance()

    def compare(self) -> None:
        """What was found against what the machine can do."""
        found, limits = self.findings, self.limits_known()
        assert self.manifest.shapes is not None
        dtype = found["choice"]["dtype"]
        itemsize = DTYPES[dtype].itemsize
        step = decode_step(self.engine.weights(), self.manifest.shapes, self.shape, itemsize)
        found["kv_bytes"] = step.kv_bytes
        if self.manifest.parameters is not None:
            found["weights_bytes"] = self.manifest.parameters * itemsize
            if "peak_bytes" in found:
                found["memory_overhead"] = found["peak_bytes"] / (found["weights_bytes"] + step.kv_bytes)
        if not limits:
            log.warning("the limits are those of %s: no share of a ceiling", machine_name(self.request.limits))
        found |= roofline(
            batch=self.shape.batch,
            step_bytes=step.bytes,
            step_flops=step.flops,
            bandwidth=limits["bandwidth_bytes_per_second"] if limits else None,
            flops=limits["matmul_flops_per_second"].get(dtype) if limits else None,
            tokens_per_second=found.get("decode_tokens_per_second"),
        )

    def _generate(self, engine: Engine) -> Tensor:
        return engine.generate(self.prompts, self.shape.generated)

    def _clocked(self) -> float:
        """Seconds of a call, whose tokens are kept to be looked at."""

        def call() -> None:
            self.last = self._generate(self.engine)

        return timing.clocked(call, self.synchronise)

    def _check(self, tokens: Tensor) -> agreement.Agreement:
        return agreement.compare(tokens, self.reference, self.vocabulary, self.request.choice.tie_margin)

    def _looked_at(self) -> dict[str, Any]:
        """How many tokens the last call produced, and whether they were right."""
        try:
            if not torch.equal(self.last, self.tokens):  # those have been checked
                self._check(self.last)
        except OutcomeError as found:
            return {"tokens": self.last.numel(), "ok": False, "message": str(found)}
        return {"tokens": self.last.numel(), "ok": True, "message": None}


def speed(batches: list[dict[str, Any]], precision: float) -> dict[str, Any]:
    """What the timed batches say; tokens, rate and interval are of those that were right and count."""
    right = [batch for batch in batches if batch["ok"]]
    good = [batch for batch in right if batch["counts"]]
    seconds = [batch["seconds"] for batch in good]
    tokens = sum(batch["tokens"] for batch in good)
    found: dict[str, Any] = {
        "successful_batches": len(right),
        "failed_batches": len(batches) - len(right),
        "tokens_generated": tokens,
    }
    if not good:
        return found
    rate = tokens / sum(seconds)
    low, high = rate_interval(np.array([[batch["seconds"], batch["tokens"]] for batch in good]))
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
