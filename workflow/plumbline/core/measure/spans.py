"""Where the time of a training run goes: spans that add up to its wall time by construction."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

COMPUTE_SPANS = ("forward", "backward", "optimizer")
TRAINING_SPANS = ("data_wait", *COMPUTE_SPANS)
SPANS = (*TRAINING_SPANS, "validation", "checkpoint", "logging", "compile", "autotune", "other")
"""`autotune`: the probe that chooses the arithmetic before the first step. `compile`: what torch.compile takes before
the first step; compiling again later lies in the steps that wait."""


class Spans:
    """A stopwatch that never stops: each `mark` gives the time since the mark before to one of SPANS.

    On a GPU the marks are events in its queue and are read in `settle`, which waits for them: steps are timed where
    they run without stopping them, and `data_wait` is then the time in which the GPU had nothing to do.
    """

    def __init__(self, device: "torch.device") -> None:
        self.seconds = dict.fromkeys(SPANS, 0.0)
        self._on_gpu = device.type == "cuda"
        self._events: list[tuple[str, torch.cuda.Event]] = []
        self._last_event = self._event() if self._on_gpu else None
        self._last = time.perf_counter()

    def mark(self, span: str) -> None:
        """The time since the last mark was spent on `span`."""
        if self._on_gpu:
            self._events.append((span, self._event()))
            return
        now = time.perf_counter()
        self.seconds[span] += now - self._last
        self._last = now

    def settle(self) -> None:
        """Brings `seconds` up to the last mark; on a GPU this waits for all work given to it."""
        for span, event in self._events:
            event.synchronize()
            assert self._last_event is not None
            self.seconds[span] += 1e-3 * self._last_event.elapsed_time(event)
            self._last_event = event
        self._events.clear()

    def take_up(self, seconds: Mapping[str, float]) -> None:
        """Adds what an earlier life of the run had spent."""
        for span, spent in seconds.items():
            self.seconds[span] += spent

    @property
    def total(self) -> float:
        """Seconds up to the last mark that was settled."""
        return sum(self.seconds.values())

    @property
    def training(self) -> float:
        """Seconds of steps: without validation, checkpoints, logging and compiling."""
        return sum(self.seconds[span] for span in TRAINING_SPANS)

    def named(self) -> dict[str, float]:
        """The spans with their unit in the name."""
        return {f"{span}_seconds": spent for span, spent in self.seconds.items()}

    @staticmethod
    def _event() -> "torch.cuda.Event":
        import torch  # here, so that summaries and diagnoses, which only read spans, do without it

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
