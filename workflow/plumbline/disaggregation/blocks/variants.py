"""The variants of `llm_decode`: all generate the same tokens, here, on the worker, or behind another system's calls."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.disaggregation.baselines.captured import Captured
from plumbline.disaggregation.baselines.decoder import Decoder, generated
from plumbline.disaggregation.baselines.owner import Owner
from plumbline.disaggregation.blocks.links import Network
from plumbline.disaggregation.runtime.client import Client
from plumbline.disaggregation.runtime.generation import Mode, RemoteModel, Streamer
from plumbline.disaggregation.runtime.models.weights import Held
from plumbline.disaggregation.settings import FULL, GENERATE, LOCAL, NO_WEIGHTS, REMOTE

WARM_TOKENS = 16
"""At most so many are generated before each turn, and half of its own: after another process's turn, it takes that
long to be steady."""
Generate = Callable[[Tensor, int, Streamer], Tensor]
"""Prompt, number of tokens, and what is told of each -> prompt and tokens."""


class Clock:
    """A streamer that notes when the last token came: what ends a session afterwards is not timed."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = time.perf_counter()

    def put(self, value: Tensor) -> None:
        """The prompt, or tokens."""
        self.seconds = time.perf_counter() - self._began

    def end(self) -> None:
        """There are no more."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to generate."""

    generate: Generate
    counted: Callable[[], tuple[int | None, int]] | None = None
    """Bytes both ways and round trips so far: no bytes where they cannot be counted. None where nothing is sent."""
    counted_by: str | None = None
    """`protocol` or `interface`."""
    warms: Generate | None = None
    """What warms the processes at work, where `generate` would take long: also a way to generate."""

    def seconds(self, name: str, prompt: Tensor, expected: Tensor) -> float:
        """Of one turn. Raises OutcomeError for other tokens than `expected`, those of transformers here."""
        clock = Clock()
        found = self.generate(prompt, expected.shape[1] - prompt.shape[1], clock)
        if not torch.equal(found, expected):
            raise OutcomeError(Outcome.INVALID_OUTPUT, f"{name} generates other tokens than transformers does locally")
        return clock.seconds

    def warm(self, prompt: Tensor, tokens: int) -> None:
        """The first of the `tokens` of a turn, untimed: afterwards the caches are those of the processes at work."""
        (self.warms or self.generate)(prompt, min(-(-tokens // 2), WARM_TOKENS), Clock())

    def traffic(self, name: str, prompt: Tensor, expected: Tensor) -> dict[str, Any]:
        """Bytes and round trips of one turn, per token, as a record has them."""
        before = self.counted and self.counted()
        self.seconds(name, prompt, expected)
        after, tokens = self.counted and self.counted(), expected.shape[1] - prompt.shape[1]
        if before is None or after is None:
            return {}
        sent = None if None in (before[0], after[0]) else cast(int, after[0]) - cast(int, before[0])
        return {
            "bytes_per_token": None if sent is None else sent / tokens,
            "counted_by": None if sent is None else self.counted_by,
            "round_trips_per_token": (after[1] - before[1]) / tokens,
        }


def here(held: Held) -> dict[str, Variant]:
    """The variants without a wire, whose work is done in this process."""
    decoder, model = Decoder(held), cast(Any, held.model)

    def generate(prompt: Tensor, tokens: int, streamer: Streamer) -> Tensor:
        inputs = prompt.to(model.device)
        mask = torch.ones_like(inputs)
        found = model.generate(inputs, attention_mask=mask, max_new_tokens=tokens, do_sample=False, streamer=streamer)
        return cast(Tensor, found.cpu())

    return {LOCAL: _of(decoder), GENERATE: Variant(generate=generate)}


def captured(held: Held) -> tuple[Variant, dict[str, Any]]:
    """`capture_only`, and what capturing took, as a record has it."""
    graph = Captured(held)
    return _of(graph), {"capture_seconds": graph.seconds, "captured_operations": graph.operations}


def on_worker(client: Client, remote: RemoteModel, held: Held) -> dict[str, Variant]:
    """The variants that the worker decodes in."""

    def counted() -> tuple[int, int]:
        meter = client.remote.wire.meter
        return meter.sent_bytes + meter.received_bytes, meter.round_trips

    def decode(mode: Mode, prompt: Tensor, tokens: int, streamer: Streamer) -> Tensor:
        return remote.generate(prompt, max_new_tokens=tokens, mode=mode, streamer=streamer)

    ways: dict[str, Generate] = {name: partial(decode, cast(Mode, mode)) for name, mode in REMOTE.items()}
    ways[NO_WEIGHTS] = partial(_uploading, client, _stranger(held))
    warms = ways[FULL]
    return {
        name: Variant(generate=way, warms=warms, counted=counted, counted_by="protocol") for name, way in ways.items()
    }


def behind(owner: Owner, between: Network) -> Variant:
    """A variant whose tokens come from calls to `owner`, which has a Decoder in another process."""
    calls = 0

    def call(tokens: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return cast(Tensor, owner.step(tokens))

    def generate(prompt: Tensor, tokens: int, streamer: Streamer) -> Tensor:
        return generated(call, call, prompt, tokens, streamer)

    return Variant(generate=generate, counted=lambda: (between.interface_bytes(), calls), counted_by="interface")


def _of(decoder: Decoder | Captured) -> Variant:
    return Variant(generate=partial(generated, decoder.prefill, decoder.decode))


def _uploading(client: Client, model: Any, prompt: Tensor, tokens: int, streamer: Streamer) -> Tensor:
    """The tokens of a model that the worker is sent first, and holds for this generation alone."""
    remote = client.upload(model)
    found = remote.generate(prompt, max_new_tokens=tokens, streamer=streamer)
    remote.free()
    return found


def _stranger(held: Held) -> Any:
    """The same weights under a config of another content, so that the worker does not hold them already.

    What differs is a dropout of a head that the model does not have.
    """
    model = copy.copy(held.model)
    model.config = copy.deepcopy(held.model.config)
    model.config.summary_first_dropout = 0.2
    return model


Variants = Mapping[str, Variant]
