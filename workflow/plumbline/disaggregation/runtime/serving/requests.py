"""What the operations ask of a worker: each is checked here, and answered, or becomes a task that waits its turn."""

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.disaggregation.runtime.models.defaults import Defaults, positions_of
from plumbline.disaggregation.runtime.models.sampling import Sampling, sampling_of
from plumbline.disaggregation.runtime.models.session import Session, can_ship
from plumbline.disaggregation.runtime.models.weights import (
    Held,
    RefusedError,
    Store,
    cleaned,
    generation_config,
    held_bytes,
    skeleton,
    specs_of,
)
from plumbline.disaggregation.runtime.serving.connection import Bounds, Budget, Connection, Upload
from plumbline.disaggregation.runtime.transport.protocol import (
    DECODE,
    MOST_ROWS,
    PREFILL,
    SHIPS_STATE,
    STREAM,
    Op,
    Reply,
    json_object,
)
from plumbline.disaggregation.runtime.transport.wire import Frame


@dataclass(eq=False)
class Task:
    """Steps of a session that wait for their turns."""

    op: Op
    handle: int
    session: Session
    tokens: Tensor | None = None
    """(rows,) of the next decode step; None: the prompt comes first."""
    steps: int = 1
    ready_at: int = 0
    """How many steps the worker had done when this one became ready."""
    unsent: list[Tensor] = field(default_factory=list)
    """(rows,) tokens of each earlier step that go with those of the next."""
    sent_at: float = 0.0
    """When tokens were last sent, by the monotonic clock."""


def load(frame: Frame, connection: Connection, store: Store) -> tuple[Held, dict[str, Any]] | None:
    """The model that a LOAD names, and what the client is told of it; None: its weights are to be uploaded.

    Raises RefusedError.
    """
    asked = json_object(frame.body)
    dtype = str(asked.get("dtype"))
    folder = None
    if isinstance(asked.get("folder"), str):
        folder = store.path(asked["folder"])
        held: Held | None = store.saved(folder, dtype)
    else:
        if not isinstance(asked.get("config"), dict):
            raise RefusedError("LOAD: names no config and no folder")
        config = cleaned(asked["config"])
        if isinstance(asked.get("content"), str):
            held = _uploaded(config, dtype, asked["content"], connection, store)
        elif isinstance(asked.get("seed"), int):
            held = store.seeded(config, dtype, asked["seed"])
        else:
            raise RefusedError("LOAD: names no seed and no content")
    if held is None:
        return None
    try:
        return held, _described(held, folder)
    except RefusedError:
        store.release(held)
        raise


def _uploaded(config: dict[str, Any], dtype: str, content: str, connection: Connection, store: Store) -> Held | None:
    if held := store.by_content(content):
        return held
    upload = connection.upload
    if upload is None or upload.content != content:
        empty = skeleton(config, dtype)
        end_upload(connection, store)
        store.reserve(size := held_bytes(empty))
        connection.expect_upload(Upload(config, dtype, content, specs_of(empty), size))
        return None
    if upload.missing:
        raise RefusedError(f"LOAD: {len(upload.missing)} weights are missing, {next(iter(upload.missing))} among them")
    end_upload(connection, store)
    return store.uploaded(upload.config, upload.dtype, upload.weights, content)


def end_upload(connection: Connection, store: Store) -> None:
    """Gives up the upload of a connection, if there is one."""
    if connection.upload is not None:
        store.unreserve(connection.upload.bytes)
        connection.expect_upload(None)


def put(frame: Frame, connection: Connection) -> None:
    """Keeps a weight of the upload. Raises RefusedError."""
    if connection.upload is None:
        raise RefusedError("PUT: no model is being uploaded")
    connection.upload.take(frame.body.decode(errors="replace"), list(frame.tensors))
    connection.expect_upload(connection.upload)


def prefill(frame: Frame, connection: Connection, bounds: Bounds, budget: Budget, device: torch.device) -> Task:
    """The task that a PREFILL starts, with a new session and no handle yet; what it needs is reserved.

    Raises RefusedError.
    """
    if len(connection.sessions) >= bounds.sessions:
        raise RefusedError(f"a connection may have {bounds.sessions} sessions; free one")
    try:
        handle, reply, streamed, *sampled, count = PREFILL.unpack_from(frame.body)
        eos = struct.unpack_from(f"<{count}i", frame.body, PREFILL.size)
        answers = Reply(reply)
    except (struct.error, ValueError):
        raise RefusedError("PREFILL: the body is malformed") from None
    held = connection.model(handle)
    prompt, mask = _prompt(frame, held)
    sampling = _sampling(sampling_of(sampled, eos), held)
    if answers in SHIPS_STATE and not can_ship(held):
        raise RefusedError("shipped: the model keeps more or less than all keys and values (a sliding window?)")
    if streamed and answers is not Reply.TOKENS:
        raise RefusedError("PREFILL: streams only tokens that the worker chooses")
    here = None if mask is None else mask.to(device)
    session = Session(held, prompt.to(device), here, sampling, answers, frame.flags)
    budget.reserve(session, max(session.needs(steps, bounds.session_bytes) for steps in {0, streamed}))
    return Task(frame.op, 0, session, steps=1 + streamed)


def _prompt(frame: Frame, held: Held) -> tuple[Tensor, Tensor | None]:
    """(rows, length) int64 tokens, and their mask if there is one."""
    if not 1 <= len(frame.tensors) <= 2:
        raise RefusedError("PREFILL: takes a prompt and optionally its mask")
    prompt, mask = frame.tensors[0], (frame.tensors[1] if len(frame.tensors) == 2 else None)
    if prompt.dtype != torch.int64 or prompt.ndim != 2 or not prompt.numel():
        given = f"{prompt.dtype} {list(prompt.shape)}"
        raise RefusedError(f"PREFILL: a prompt is int64, (rows, length) and not empty; this is {given}")
    if prompt.shape[0] > MOST_ROWS:
        raise RefusedError(f"PREFILL: {prompt.shape[0]} rows, of at most {MOST_ROWS}; split the batch")
    _check_tokens(prompt, held)
    if mask is not None and (mask.dtype != torch.int64 or mask.shape != prompt.shape):
        raise RefusedError(f"PREFILL: the mask is {mask.dtype} {list(mask.shape)}, not like the prompt")
    if mask is not None and not bool((mask[:, -1] == 1).all() and ((mask == 0) | (mask == 1)).all()):
        raise RefusedError("PREFILL: the mask must hold 0 and 1, and padding must stand on the left")
    return prompt, mask


def _sampling(sampling: Sampling, held: Held) -> Sampling:
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0 and sampling.top_k >= 0):
        raise RefusedError(f"PREFILL: temperature {sampling.temperature}, top-k {sampling.top_k}: must not be negative")
    for name, token in [("end-of-text", one) for one in sampling.eos] + [("padding", sampling.padding)]:
        if sampling.eos and not 0 <= token < held.vocabulary:
            raise RefusedError(f"the {name} token {token} is outside the vocabulary of {held.vocabulary}")
    return sampling


def steps(frame: Frame, session: Session, bounds: Bounds, budget: Budget, device: torch.device) -> tuple[Tensor, int]:
    """The tokens and the number of steps of a DECODE or STREAM. Raises RefusedError, and changes nothing then."""
    form = STREAM if frame.op is Op.STREAM else DECODE
    if len(frame.body) != form.size + 4 * session.rows:
        raise RefusedError(f"{frame.op.name}: wants {session.rows} tokens")
    epoch, *count = form.unpack_from(frame.body)
    if epoch != session.epoch:
        raise RefusedError(f"stale handle: the session is at epoch {session.epoch}, the request at {epoch}")
    tokens = torch.tensor(struct.unpack_from(f"<{session.rows}i", frame.body, form.size))
    _check_tokens(tokens, session.held)
    number = count[0] if count else 1
    if number < 1 or (frame.op is Op.STREAM and session.reply is not Reply.TOKENS):
        raise RefusedError("STREAM: wants at least one step, of a session whose tokens the worker chooses")
    budget.reserve(session, session.needs(number, bounds.session_bytes))
    session.restore([one.to(device) for one in frame.tensors])
    return tokens.to(device), number


def _check_tokens(tokens: Tensor, held: Held) -> None:
    least, most = torch.aminmax(tokens)
    if int(least) < 0 or int(most) >= held.vocabulary:
        raise RefusedError(f"a token is outside the vocabulary of {held.vocabulary}")


def _described(held: Held, folder: Path | None) -> dict[str, Any]:
    """What a client must know of a model, which lies in `folder` if it was read from one."""
    defaults = Defaults.of(generation_config(held, folder), positions_of(held.model.config))
    return {"content": held.content, "bytes": held.bytes, "defaults": defaults.to_json()}
