"""Candidates of a comparison, loaded side by side and timed in turn. Runs in a process of its own."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from plumbline.core.measure.interleave import Candidate, interleave, rounds_per_process
from plumbline.core.measure.run_queue import RunQueue
from plumbline.core.run.device import device_name, memory_errors, torch_device
from plumbline.core.run.processes import limit_address_space
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.engines.interface import Engine, Shape, load
from plumbline.throughput.measurement import agreement, timing
from plumbline.throughput.measurement.autotune import check_dtype
from plumbline.throughput.measurement.entry import Entry
from plumbline.throughput.measurement.prompts import prompts
from plumbline.throughput.measurement.settings import ComparisonSettings, TrialTiming
from plumbline.throughput.record import ComparedCandidate, Interleaved, LeftOut

log = logging.getLogger("plumbline")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is compared, and for how long."""

    entries: Sequence[Entry]
    """The baseline first."""
    comparison: ComparisonSettings
    timing: TrialTiming
    tie_margin: float
    seed: int
    """Of the prompts, and of the order of the rounds."""
    process: int
    """Number of this process, from 0, which changes the order of the rounds."""
    text: Path
    device: str
    """auto | cpu | cuda."""
    reload: bool
    """Whether to load a candidate for each of its turns, and to close it after."""


WARM_UP_SECONDS = 0.2
"""Time of a candidate's warm-up once it has had three calls: it warms up again in every process."""


class WrongTokensError(Exception):
    """A candidate generated other tokens than in its first call."""


def run(request: Request) -> dict[str, Any]:
    """Device, candidates, left-out candidates and rounds, as JSON; rounds are None where only the baseline is left.

    Raises OutcomeError when the baseline has no speed, MemoryError when the candidates do not fit side by side.
    """
    device = torch_device(request.device)
    if request.timing.memory_limit_bytes is not None and device.type == "cpu":
        limit_address_space(request.timing.memory_limit_bytes)
    left_out: list[LeftOut] = []
    rounds: Interleaved | None = None
    with memory_errors():
        loaded = list(_load(request, device, left_out))
        while len(loaded) > 1 and rounds is None:
            try:
                rounds = _rounds(request, loaded)
            except WrongTokensError as error:
                wrong = next(each for each in loaded if each.entry.name == error.args[0])
                _leave_out(request, wrong.entry, OutcomeError(Outcome.INVALID_OUTPUT, error.args[1]), left_out)
                loaded.remove(wrong)
    for each in loaded:
        each.close()
    return {
        "device": device_name(device),
        "candidates": [each.found.model_dump() for each in loaded],
        "left_out": [each.model_dump(mode="json") for each in left_out],
        "rounds": rounds and rounds.model_dump(),
    }


def _load(request: Request, device: torch.device, left_out: list[LeftOut]) -> Any:
    """Each candidate after its first, correct call and its warm-up; those without a speed go to `left_out`."""
    for entry in request.entries:
        try:
            yield Loaded(entry, request, device)
        except OutcomeError as error:
            _leave_out(request, entry, error, left_out)


def _leave_out(request: Request, entry: Entry, error: OutcomeError, left_out: list[LeftOut]) -> None:
    """Notes why a candidate has no speed. Raises `error` where it is the baseline."""
    if entry is request.entries[0]:
        raise OutcomeError(error.outcome, f"the baseline {entry.name}: {error}")
    log.info("%s is left out: %s: %s", entry.name, error.outcome, error)
    left_out.append(LeftOut(name=entry.name, trial=entry.cell.trial, outcome=error.outcome, message=str(error)))


def _rounds(request: Request, loaded: Sequence["Loaded"]) -> Interleaved:
    """The candidates' rounds, the first being the baseline."""
    baseline, *others = (
        Candidate(name=each.entry.name, run=each.reloaded_seconds if request.reload else each.seconds)
        for each in loaded
    )
    with timing.no_garbage_collection():
        rounds = interleave(
            baseline,
            others,
            seconds=request.comparison.seconds,
            precision=request.comparison.precision,
            min_rounds=rounds_per_process(request.comparison.processes),
            seed=(request.seed, request.process),
        )
    log.info("%d rounds of %s", len(rounds.seconds), ", ".join(rounds.names))
    return Interleaved(
        arrangement="reloads" if request.reload else "together",
        names=rounds.names,
        seconds=rounds.seconds.tolist(),
        orders=rounds.orders.tolist(),
        processes=rounds.processes.tolist(),
        precise=rounds.precise,
        waiting_shares={each.entry.name: each.waiting_share for each in loaded},
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
    )


class Loaded:
    """A loaded candidate, whose every call is timed and whose tokens are checked."""

    def __init__(self, entry: Entry, request: Request, device: torch.device) -> None:
        """Raises OutcomeError when the candidate cannot run or its tokens are wrong."""
        self.entry, self._device, self._tie_margin = entry, device, request.tie_margin
        check_dtype(entry.config.dtype, device)
        if entry.manifest.shapes is None:
            raise OutcomeError(Outcome.UNAVAILABLE, f"{entry.manifest.variant}: its manifest has no shapes")
        cell, self._vocabulary = entry.cell, entry.manifest.shapes.vocabulary
        self._shape = Shape(batch=cell.batch, prompt=cell.prompt, generated=cell.generated)
        self._reference = agreement.read_reference(entry.reference, self._shape)
        self._prompts = prompts(request.text, self._vocabulary, cell.batch, cell.prompt, request.seed)
        self._synchronise = timing.synchroniser(device)
        self._wall = self._waited = 0.0
        self._queue: RunQueue | None = None
        self._engine: Engine | None = None
        load(cell.engine).prepare(entry.manifest)
        self._open()
        self.found = self._first_call()
        if request.reload:
            self.close()
        else:
            timing.warm_up(self.seconds, request.timing.model_copy(update={"seconds": WARM_UP_SECONDS}))
            self._wall = self._waited = 0.0

    @property
    def waiting_share(self) -> float:
        """Share of the calls' wall-clock time that was waiting for a CPU."""
        return self._waited / self._wall if self._wall else 0.0

    def seconds(self) -> float:
        """Seconds of a call, without those in which it waited for a CPU. Raises WrongTokensError for wrong tokens.

        Waiting is left out where one thread computes on the CPU; of several, it does not say how long all were held up.
        """
        before = self._queue.times() if self._queue else []
        wall = timing.clocked(self._generate, self._synchronise)
        waited = self._queue.waited_since(before, wall) if self._queue else 0.0
        self._wall, self._waited = self._wall + wall, self._waited + waited
        if not torch.equal(self._last, self._tokens):  # those have been checked
            try:
                self._check()
            except OutcomeError as error:
                raise WrongTokensError(self.entry.name, str(error)) from None
        return wall - waited

    def reloaded_seconds(self) -> float:
        """Seconds of the second call after the candidate was loaded; it is closed afterwards."""
        self._open()
        self.seconds()
        seconds = self.seconds()
        self.close()
        return seconds

    def close(self) -> None:
        """Releases the engine and its memory."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def _open(self) -> None:
        entry = self.entry
        torch.set_num_threads(entry.config.threads)
        self._engine = load(entry.cell.engine)(entry.manifest, self._device, entry.config, self._shape)
        if self._device.type == "cpu" and entry.config.threads == 1:
            self._queue = RunQueue()  # with the threads that the engine has started

    def _generate(self) -> None:
        assert self._engine is not None
        self._last = self._engine.generate(self._prompts, self._shape.generated)

    def _check(self) -> agreement.Agreement:
        return agreement.check_tokens(self._last, self._reference, self._vocabulary, self._tie_margin)

    def _first_call(self) -> ComparedCandidate:
        """Generates once and checks the tokens. Raises OutcomeError when they are wrong."""
        self._generate()
        self._tokens, found = self._last, self._check()
        entry = self.entry
        return ComparedCandidate(
            name=entry.name,
            trial=entry.cell.trial,
            variant=entry.cell.variant,
            engine=entry.cell.engine,
            engine_config=entry.config,
            tokens_sha256=agreement.sha256(self._tokens),
            rows_equal=found.rows_equal,
            rows_tied=found.rows_tied,
        )
