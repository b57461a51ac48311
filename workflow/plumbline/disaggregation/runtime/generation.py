"""A model on a worker, and how its tokens come: streamed, asked for, or chosen on this side; replayed after a loss."""

import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.models.defaults import Defaults, inferred_mask
from plumbline.disaggregation.runtime.models.sampling import Sampler, Sampling
from plumbline.disaggregation.runtime.transport.protocol import (
    DECODE,
    EVERY_POSITION,
    LAST,
    NO_PHASE,
    PREFILL,
    Op,
    PeerGoneError,
    Reply,
    WireError,
    json_bytes,
    json_object,
)
from plumbline.disaggregation.runtime.transport.remote import ClosedError, Remote
from plumbline.disaggregation.runtime.transport.wire import Frame

if TYPE_CHECKING:
    from plumbline.disaggregation.runtime.client import Client

MOST_LOSSES = 3
"""Workers that one generation may lose before it is given up: a prompt may be what kills them."""

Mode = Literal["stream", "step", "logits", "positions", "phaseless", "carried", "whole", "shipped"]


@dataclass(frozen=True)
class Way:
    """What a mode asks of the worker."""

    reply: Reply = Reply.TOKENS
    flags: int = 0
    streams: bool = False
    """Whether all tokens are asked for at once, with the prompt."""

    @property
    def chooses_here(self) -> bool:
        """Whether this side chooses the tokens, from logits."""
        return self.reply not in (Reply.TOKENS, Reply.TOKENS_AND_STATE)


MODES: dict[Mode, Way] = {
    "stream": Way(streams=True),
    "step": Way(),
    "logits": Way(Reply.LAST_LOGITS),
    "positions": Way(flags=EVERY_POSITION, streams=True),
    "phaseless": Way(flags=NO_PHASE, streams=True),
    "carried": Way(Reply.TOKENS_AND_STATE),
    "whole": Way(Reply.ALL_LOGITS),
    "shipped": Way(Reply.STATE),
}


class WorkerLostError(UserError):
    """The worker is gone, and the state of its sessions with it."""


class Streamer(Protocol):
    """What transformers calls a streamer."""

    def put(self, value: Tensor) -> None:
        """Takes the prompt, then the tokens of each step."""

    def end(self) -> None:
        """There are no more."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that decides the tokens of a generation: its lineage."""

    prompt: Tensor
    mask: Tensor | None
    sampling: Sampling
    steps: int
    mode: Mode


class RemoteModel:
    """A model on a worker."""

    def __init__(
        self, client: "Client", asked: dict[str, Any], weights: Mapping[str, Tensor], defaults: Defaults | None = None
    ) -> None:
        """defaults: of a model of this process; None takes what the worker tells."""
        self._client = client
        self._asked = asked
        self._weights = weights
        self.handle = 0
        self.content = ""
        self._given = defaults
        self.defaults = Defaults()

    def load(self, remote: Remote) -> None:
        """Has the worker hold the model, for this connection."""
        told = json_object(remote.ask(Op.LOAD, body=json_bytes(self._asked)).body)
        if told.get("upload"):
            for name, tensor in self._weights.items():
                remote.ask(Op.PUT, body=name.encode(), tensors=[tensor.detach()])
            told = json_object(remote.ask(Op.LOAD, body=json_bytes(self._asked)).body)
        self.handle, self.content = int(told["model"]), str(told["content"])
        self.defaults = self._given or Defaults.told(told["defaults"])

    def free(self) -> None:
        """Gives the model up; the worker frees it when no other connection uses it."""
        self._client.forget(self)

    def generate(
        self,
        prompt: Tensor,
        *,
        max_new_tokens: int | None = None,
        attention_mask: Tensor | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        seed: int = 0,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        streamer: Streamer | None = None,
        mode: Mode = "stream",
    ) -> Tensor:
        """(rows, length) -> (rows, length + new) tokens, those that transformers' `generate` gives after
        `torch.manual_seed(seed)`.

        attention_mask: 0 where there is padding, which stands on the left; None infers it from the padding token as
        transformers does. None elsewhere takes what the model's `generation_config` says, which for max_new_tokens may
        be a max_length, and is 20 where it says nothing; an empty list as eos_token_id never ends early. streamer:
        takes the prompt and each step's tokens, as they come.
        mode: `stream` asks once and the worker sends each token; `step` asks for each; `logits` has the worker send
        logits, from which this side chooses. The others leave out what the runtime knows, for comparison: `positions`
        is `stream` with logits computed at every position; `phaseless` is `stream` with the whole sequence going
        through the model in each step; `carried` is `step` with keys and values that travel both ways; `whole` is
        `logits` with those of every position; `shipped` is `logits` with keys and values that travel both ways.

        Raises RequestRefusedError, and WorkerLostError with the number of the token that the worker was lost at.
        """
        if mode not in MODES:
            raise UserError(f"mode: {mode!r} does not exist; choose from {', '.join(MODES)}")
        if not isinstance(prompt, Tensor) or prompt.is_floating_point():
            raise UserError("prompt: is not a tensor of token ids, (rows, length) of an integer type")
        if prompt.ndim != 2 or not prompt.numel():
            raise UserError(
                f"prompt: has the shape {list(prompt.shape)}, not (rows, length); for one row, pass prompt[None]"
            )
        if max_new_tokens is None:
            max_new_tokens = self.defaults.new_tokens(prompt.shape[-1])
        if not isinstance(max_new_tokens, int) or isinstance(max_new_tokens, bool) or max_new_tokens < 1:
            raise UserError(f"max_new_tokens: {max_new_tokens!r} is not an integer above 0")
        given: dict[str, Any] = {
            "do_sample": do_sample,
            "temperature": temperature,
            "top_k": top_k,
            "pad": pad_token_id,
        }
        if eos_token_id is not None:
            given["eos"] = (eos_token_id,) if isinstance(eos_token_id, int) else tuple(eos_token_id)
        settings = replace(self.defaults, **{name: value for name, value in given.items() if value is not None})
        sampling = _sampling(settings, seed)
        if attention_mask is None:
            attention_mask = inferred_mask(prompt, sampling.eos, sampling.pad)
        mask = None if attention_mask is None else attention_mask.long()
        request = Request(prompt=prompt.long(), mask=mask, sampling=sampling, steps=max_new_tokens, mode=mode)
        if streamer is not None:
            streamer.put(prompt)
        found: list[Tensor] = []
        with closing(self._lasting(request)) as steps:  # an error in the streamer ends the session
            for tokens in steps:
                found.append(tokens)
                if streamer is not None:
                    streamer.put(tokens)
        if streamer is not None:
            streamer.end()
        return torch.cat([request.prompt, torch.stack(found, 1)], 1)

    def _lasting(self, request: Request) -> Generator[Tensor, None, None]:
        """The tokens of each step. After a loss, the steps that were seen are replayed, and compared."""
        seen: list[Tensor] = []
        for losses in range(MOST_LOSSES + 1):
            try:
                for number, tokens in enumerate(self._steps(request)):
                    if number == len(seen):
                        seen.append(tokens)
                        yield tokens
                    elif not torch.equal(tokens, seen[number]):
                        raise UserError(
                            f"worker {self._client.remote.address}: token {number + 1} changed when it was replayed; "
                            "all workers of a client need the same versions, device and number of threads"
                        )
                return
            except WireError as error:
                where = f"token {len(seen) + 1} of {request.steps}"
                lost = f"worker {self._client.remote.address}: was lost at {where} ({error})"
                if not self._client.recovers:
                    raise WorkerLostError(f"{lost}; with recover='lineage', another worker would take over") from None
                if losses == MOST_LOSSES:
                    raise WorkerLostError(f"{lost}; giving up after {losses + 1} lost workers") from None
                self._client.move(lost)

    def _steps(self, request: Request) -> Iterator[Tensor]:
        """The tokens of each step, from a session that is freed afterwards. Raises PeerGoneError."""
        remote, rows, way = self._client.remote, request.prompt.shape[0], MODES[request.mode]
        body, tensors = _prefill(self.handle, request), _inputs(request)
        answer = remote.ask(Op.PREFILL, body=body, tensors=tensors, flags=way.flags)
        session = answer.session
        try:
            if way.chooses_here:
                yield from self._choosing(remote, request, answer)
            else:
                yield from _received(remote, request, answer, rows)
        finally:
            with suppress(WireError, OSError, ClosedError):  # the session is gone with its connection
                remote.free(session)

    def _choosing(self, remote: Remote, request: Request, answer: Frame) -> Iterator[Tensor]:
        """Tokens that this side chooses from the worker's logits."""
        sampler = Sampler(request.sampling, request.prompt.shape[0], torch.device("cpu"))
        for step in range(1, request.steps + 1):
            logits, *state = answer.tensors
            yield (tokens := sampler.choose(logits[:, -1] if request.mode == "whole" else logits))
            if step == request.steps or sampler.has_ended:
                return
            answer = remote.ask(Op.DECODE, answer.session, DECODE.pack(step) + _packed(tokens), state)


def _received(remote: Remote, request: Request, answer: Frame, rows: int) -> Iterator[Tensor]:
    """Tokens that the worker chooses: asked for one by one, or all with the prompt."""
    session, yielded = answer.session, 1
    tokens = _unpacked(answer, rows, 1)[0]
    yield tokens
    while yielded < request.steps and not answer.flags & LAST:
        if MODES[request.mode].streams:
            answer = remote.answer(Op.STREAM)
            found = _unpacked(answer, rows, request.steps - yielded)
        else:
            answer = remote.ask(Op.DECODE, session, DECODE.pack(yielded) + _packed(tokens), answer.tensors)
            found = _unpacked(answer, rows, 1)
        for tokens in found:
            yielded += 1
            yield tokens


def _sampling(settings: Defaults, seed: int) -> Sampling:
    """How tokens are chosen. Raises UserError for values that the protocol or the runtime cannot take."""
    settings.check(do_sample=settings.do_sample)
    if not isinstance(settings.do_sample, bool):
        raise UserError(f"do_sample: {settings.do_sample!r} is not True or False")
    temperature = settings.temperature
    if settings.do_sample and not (isinstance(temperature, int | float) and 0 < temperature < float("inf")):
        raise UserError(f"temperature: {temperature!r} is not a number above 0; for greedy tokens, set do_sample=False")
    for name, value, least, most in (
        ("top_k", settings.top_k, 0, 2**31 - 1),
        ("seed", seed, 0, 2**64 - 1),
        ("pad_token_id", settings.pad, -1, 2**31 - 1),
        *(("eos_token_id", one, 0, 2**31 - 1) for one in settings.eos),
        ("number of eos_token_id", len(settings.eos), 0, 255),
    ):
        if not isinstance(value, int) or not least <= value <= most:
            raise UserError(f"{name}: {value!r} is not an integer between {least} and {most}")
    return Sampling(
        temperature=settings.temperature if settings.do_sample else 0.0,
        top_k=settings.top_k if settings.do_sample else 0,
        seed=seed,
        eos=settings.eos,
        pad=settings.pad,
    )


def _prefill(model: int, request: Request) -> bytes:
    sampling = request.sampling
    values = (sampling.temperature, sampling.top_k, sampling.seed, sampling.pad, len(sampling.eos))
    way = MODES[request.mode]
    body = PREFILL.pack(model, way.reply, request.steps - 1 if way.streams else 0, *values)
    return body + struct.pack(f"<{len(sampling.eos)}i", *sampling.eos)


def _inputs(request: Request) -> list[Tensor]:
    return [request.prompt] if request.mask is None else [request.prompt, request.mask]


def _packed(tokens: Tensor) -> bytes:
    """4 bytes a token."""
    return tokens.to(torch.int32).numpy().tobytes()


def _unpacked(answer: Frame, rows: int, most: int) -> list[Tensor]:
    """(rows,) int64 of each step. Raises PeerGoneError for an answer that is not of 1 to `most` steps."""
    steps, rest = divmod(len(answer.body), 4 * rows)
    if rest or not 1 <= steps <= most:
        raise PeerGoneError(f"answered {len(answer.body)} bytes for the tokens of {rows} rows in at most {most} steps")
    return list(torch.tensor(list(struct.iter_unpack(f"<{rows}i", answer.body))).unbind())
