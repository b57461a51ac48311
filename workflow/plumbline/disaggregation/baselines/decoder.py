"""A model with the state of one generation, wherever it runs: the computation that all baselines share."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from plumbline.disaggregation.runtime.generation import Streamer
from plumbline.disaggregation.runtime.models.sampling import Sampling
from plumbline.disaggregation.runtime.models.session import Session
from plumbline.disaggregation.runtime.models.weights import Held, build
from plumbline.disaggregation.runtime.transport.protocol import Reply


class Decoder:
    """Decodes greedily, as the worker does. Keys and values stay here between the calls."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self._session: Session | None = None

    @classmethod
    def built(cls, config: dict[str, object], dtype: str, seed: int, device: str) -> "Decoder":
        """With a model of its own, in the process that this is called in."""
        model = build(config, dtype, seed).to(torch.device(device))  # type: ignore[arg-type]
        return cls(Held(model, "", 0))

    def prefill(self, prompt: Tensor) -> Tensor:
        """(rows, length) tokens -> the (rows,) that follow, on the CPU. What was kept of another prompt is dropped."""
        device = self.held.device
        self._session = Session(self.held, prompt.to(device), None, Sampling(), Reply.TOKENS)
        return cast(Tensor, self._session.prefill().tokens).cpu()

    def decode(self, tokens: Tensor) -> Tensor:
        """(rows,) tokens -> the (rows,) that follow, on the CPU. A prompt must have come before."""
        assert self._session is not None
        return cast(Tensor, self._session.decode(tokens.to(self.held.device)).tokens).cpu()

    def step(self, tokens: Tensor) -> Tensor:
        """(rows, length) tokens of a prompt, or the (rows,) of a step -> the (rows,) that follow."""
        return self.prefill(tokens) if tokens.ndim == 2 else self.decode(tokens)


Step = Callable[[Tensor], Tensor]


def generated(prefill: Step, decode: Step, prompt: Tensor, steps: int, streamer: Streamer) -> Tensor:
    """(rows, length) -> (rows, length + steps): the tokens of `prefill`, then of each `decode`."""
    found = [prefill(prompt)]
    streamer.put(found[0])
    for _ in range(steps - 1):
        found.append(decode(found[-1]))
        streamer.put(found[-1])
    return torch.cat([prompt, torch.stack(found, 1)], 1)
