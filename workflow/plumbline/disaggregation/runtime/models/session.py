"""A session: the state of one batch in one model, which only its connection may continue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbline.disaggregation.runtime.models.sampling import Sampler, Sampling
from plumbline.disaggregation.runtime.models.weights import Held, RefusedError
from plumbline.disaggregation.runtime.transport import buffers
from plumbline.disaggregation.runtime.transport.protocol import EVERY_POSITION, NO_PHASE, SHIPS_STATE, Reply


@dataclass(frozen=True)
class Answer:
    """What a step gave: (rows,) tokens, or logits; and perhaps the state."""

    tokens: Tensor | None = None
    tensors: tuple[Tensor, ...] = ()


class Session:
    """A batch of prompts in a model. `epoch` counts the changes of its state: a step names the one it follows."""

    def __init__(
        self, held: Held, prompt: Tensor, mask: Tensor | None, sampling: Sampling, reply: Reply, flags: int = 0
    ) -> None:
        """prompt: (rows, length), int64. mask: the same shape, 0 where there is padding; None: none.

        flags: `EVERY_POSITION` and `NO_PHASE` of the protocol.
        """
        self.held = held
        self.reply = reply
        self.reserved_bytes = 0
        """Of the memory of all sessions."""
        self.rows, self.length = prompt.shape
        self.epoch = 0
        self.sampler = Sampler(sampling, self.rows, prompt.device)
        self._prompt = prompt
        self._mask = mask if mask is not None and not bool((mask == 1).all()) else None
        self._more: dict[str, Any] = {"use_cache": True}
        self._keeps_all_logits = reply is Reply.ALL_LOGITS or bool(flags & EVERY_POSITION)
        if "logits_to_keep" in held.arguments and not self._keeps_all_logits:
            self._more["logits_to_keep"] = 1
        self._knows_phases = not flags & NO_PHASE
        self._has_positions = "position_ids" in held.arguments
        self._positions = _positions(prompt, self._mask)
        self._cache: Any = None
        self.awaited: list[tuple[torch.dtype, torch.Size]] = []
        """Of the state, while the client has it."""
        self.awaited_bytes = 0
        """Of its buffers, padding included."""

    @torch.inference_mode()
    def prefill(self) -> Answer:
        """The prompt through the model, and the first token."""
        self._cache = _new_cache(self.held)
        return self._answer(self._forward(self._prompt, is_first_iteration=True))

    @torch.inference_mode()
    def decode(self, tokens: Tensor) -> Answer:
        """(rows,) tokens through the model, and the next."""
        self.length += 1
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones((self.rows, 1))], -1)
        if not self._knows_phases:
            self._prompt = torch.cat([self._prompt, tokens[:, None]], -1)
            self._positions = _positions(self._prompt, self._mask)
            return self.prefill()
        self._positions = self._positions[:, -1:] + 1
        return self._answer(self._forward(tokens[:, None], is_first_iteration=False))

    @property
    def state_bytes(self) -> int:
        """Bytes of keys and values."""
        layers = self._cache.layers if self._cache is not None else ()
        kept = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
        return sum(one.nbytes for one in kept if isinstance(one, Tensor))

    def needs(self, steps: int, most_bytes: int) -> int:
        """Bytes that so many more tokens need: keys and values of all, and the logits of one step.

        Raises RefusedError when they exceed the model's positions, or `most_bytes` of either.
        """
        length = self.length + steps
        kept = length if self._keeps_all_logits and steps == 0 else 1
        state = check_room(self.held, self.rows, length, most_bytes)
        return state + check_logits(self.held, self.rows, kept, most_bytes)

    def _forward(self, tokens: Tensor, *, is_first_iteration: bool) -> Tensor:
        """(rows, kept, vocabulary) logits; the call is the one that `generate` makes."""
        model: Any = self.held.model
        more = {"position_ids": self._positions, **self._more} if self._has_positions else self._more
        inputs = model.prepare_inputs_for_generation(
            tokens,
            past_key_values=self._cache,
            attention_mask=self._mask,
            is_first_iteration=is_first_iteration,
            **more,
        )
        self.epoch += 1
        logits: Tensor = model(**inputs, return_dict=True).logits
        return logits

    def _answer(self, logits: Tensor) -> Answer:
        state = self._shipped() if self.reply in SHIPS_STATE else ()
        if self.reply in (Reply.TOKENS, Reply.TOKENS_AND_STATE):
            return Answer(self.sampler.choose(logits[:, -1]), state)
        chosen = logits if self.reply is Reply.ALL_LOGITS else logits[:, -1]
        return Answer(tensors=(chosen.float(), *state))

    def _shipped(self) -> tuple[Tensor, Tensor]:
        """Keys and values, (layers, rows, heads, length, width) each, which this session has no more afterwards."""
        layers = self._cache.layers
        keys = torch.stack([layer.keys for layer in layers])
        values = torch.stack([layer.values for layer in layers])
        self.awaited = [(one.dtype, one.shape) for one in (keys, values)]
        self.awaited_bytes = buffers.padded(keys.nbytes) + values.nbytes
        self._cache = None
        return keys, values

    def restore(self, state: Sequence[Tensor]) -> None:
        """Takes back what was shipped. Raises RefusedError for a state that is not of its type and shape."""
        if [(one.dtype, one.shape) for one in state] != self.awaited:
            raise RefusedError("DECODE: the state is not the one that the last answer held")
        if self.awaited:
            self._cache = _new_cache(self.held)
            for layer, (keys, values) in enumerate(zip(*state, strict=True)):
                self._cache.update(keys, values, layer)


def check_room(held: Held, rows: int, length: int, most_bytes: int) -> int:
    """Bytes of state of `rows` of `length` tokens. Raises RefusedError when they exceed the model's positions, or
    `most_bytes`.
    """
    positions = getattr(held.config, "max_position_embeddings", None)
    if positions is not None and length > positions:
        raise RefusedError(f"{length} tokens: the model has {positions} positions")
    if (size := rows * length * held.state_bytes_per_token) > most_bytes:
        raise RefusedError(f"a state of {size} bytes: a session may have {most_bytes}")
    return size


def check_logits(held: Held, rows: int, positions: int, most_bytes: int) -> int:
    """Bytes of a step's logits and of their copy in float32. Raises RefusedError when they exceed `most_bytes`."""
    size = rows * positions * held.vocabulary * (held.dtype.itemsize + torch.float32.itemsize)
    if size > most_bytes:
        raise RefusedError(
            f"logits of {size} bytes: a session may have {most_bytes}; send fewer rows or a shorter prompt"
        )
    return size


def can_ship(held: Held) -> bool:
    """Whether keys and values are all that a session keeps, those of every token: they alone restore it then."""
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in _new_cache(held).layers)


def _new_cache(held: Held) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=held.config)


def _positions(prompt: Tensor, mask: Tensor | None) -> Tensor:
    """Of each token, padding not counted."""
    if mask is None:
        return torch.arange(prompt.shape[1], device=prompt.device)[None]
    return (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)
