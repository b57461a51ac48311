"""Baseline `capture_only`: the decode step as a graph of aten operations, captured once and replayed here.

The graph is symbolic in the number of tokens that keys and values hold, so one capture serves all steps. The prompt
is not captured: it runs as it does locally. `make_fx` records what torch executes; `torch.export` gives the same
operations, but takes twice as long for it.
"""

import time
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from plumbline.disaggregation.runtime.models.weights import Held


class Captured:
    """A model whose decode step was captured."""

    def __init__(self, held: Held) -> None:
        """Captures the step; `seconds` says how long that took: what a first, cold call pays."""
        self._model: Any = held.model
        self._state: list[Tensor] = []
        self._length = 0
        began = time.perf_counter()
        example = torch.zeros((1, 5), dtype=torch.int64, device=held.model.device)
        first = self.prefill(example)
        trace = make_fx(self._step, tracing_mode="symbolic", _allow_non_fake_inputs=True)  # weights are constants in it
        with torch.no_grad():
            self._graph = trace(first, self._position(first), *self._state)
        self.seconds = time.perf_counter() - began

    @property
    def operations(self) -> int:
        """Number of aten operations in the captured step."""
        return sum(node.op == "call_function" for node in self._graph.graph.nodes)

    @torch.no_grad()
    def prefill(self, prompt: Tensor) -> Tensor:
        """(rows, length) tokens -> the (rows,) that follow, on the CPU."""
        found = self._model(input_ids=prompt.to(self._model.device), use_cache=True, logits_to_keep=1)
        self._length = prompt.shape[1]
        self._state = _state(found.past_key_values)
        return found.logits[:, -1].float().argmax(-1).cpu()

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """(rows,) tokens -> the (rows,) that follow, on the CPU: the graph, replayed."""
        here = tokens.to(self._model.device)
        chosen, *self._state = self._graph(here, self._position(here), *self._state)
        self._length += 1
        return chosen.cpu()

    def _position(self, tokens: Tensor) -> Tensor:
        return torch.full((tokens.shape[0], 1), self._length, device=tokens.device)

    def _step(self, tokens: Tensor, positions: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The step that is captured: tokens and their positions, keys and values -> tokens, keys and values."""
        cache = _cache(state)
        found = self._model(
            input_ids=tokens[:, None], position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return found.logits[:, -1].float().argmax(-1), *_state(found.past_key_values)


def _state(cache: Any) -> list[Tensor]:
    """Keys and values of each layer in turn."""
    return [one for layer in cache.layers for one in (layer.keys, layer.values)]


def _cache(state: tuple[Tensor, ...]) -> Any:
    """A cache that holds these keys and values themselves, not copies."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache()
    for keys, values in zip(state[::2], state[1::2], strict=True):
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache
