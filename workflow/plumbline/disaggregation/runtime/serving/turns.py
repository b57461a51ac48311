"""Whose step is next: sessions take turns, one step each, so that none waits for more steps than there are others."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from plumbline.disaggregation.runtime.models.session import Answer
from plumbline.disaggregation.runtime.serving.connection import Connection
from plumbline.disaggregation.runtime.serving.requests import Task
from plumbline.disaggregation.runtime.transport.protocol import BODY_LIMITS, LAST, Op, WireError

TOKEN_BYTES = 4
"""Of a token in a frame."""


class Turns:
    """The tasks of all sessions: at most one of each, in the order in which they became ready."""

    def __init__(self) -> None:
        self.steps = 0
        """How many have been done."""
        self._ready: deque[tuple[Connection, Task]] = deque()
        self._tasks: dict[int, Task] = {}

    @property
    def is_ready(self) -> bool:
        """Whether a step waits."""
        return bool(self._ready)

    def is_busy(self, handle: int) -> bool:
        """Whether a session's last request is still under way."""
        return handle in self._tasks

    def add(self, connection: Connection, task: Task) -> None:
        """Queues a task."""
        task.ready_at = self.steps
        self._tasks[task.handle] = task
        self._ready.append((connection, task))

    def next(self) -> tuple[Connection, Task] | None:
        """The task whose step is to be done now; None where its client does not read: then it is parked."""
        connection, task = self._ready.popleft()
        if connection.wire.has_unsent:
            connection.parked.append(task)
            return None
        connection.longest_wait_steps = max(connection.longest_wait_steps, self.steps - task.ready_at)
        self.steps += 1
        return connection, task

    def answer(self, connection: Connection, task: Task, answer: Answer, *, is_alone: bool = False) -> None:
        """Sends what a step gave, and queues the task's next step if it has one. Raises WireError.

        is_alone: whether nothing else waits for this worker. Tokens of a stream may then wait for the next step's.
        """
        task.steps -= 1
        if answer.tensors:
            connection.expect_states()
        if answer.tokens is not None:
            task.unsent.append(answer.tokens)
        has_ended = task.session.sampler.has_ended
        is_last = task.steps == 0 or has_ended
        flags = LAST if has_ended or (is_last and task.op is Op.STREAM) else 0
        if is_last or not (is_alone and _may_wait(task, connection.wire.limits.stream_seconds)):
            _send(connection, task, answer.tensors, flags)
        if is_last:
            del self._tasks[task.handle]
        else:
            task.op, task.tokens, task.ready_at = Op.STREAM, answer.tokens, self.steps
            self._ready.append((connection, task))

    def flush(self, connection: Connection, task: Task) -> None:
        """Sends what a task has held back. Raises WireError."""
        if task.unsent:
            _send(connection, task)

    def flush_all(self) -> None:
        """The same of all tasks that are ready; a connection that has broken is found when its step is done."""
        for connection, task in self._ready:
            with suppress(WireError):
                self.flush(connection, task)

    def drop(self, connection: Connection, handle: int) -> None:
        """Forgets the task of a session, if it has one."""
        if (task := self._tasks.pop(handle, None)) is not None:
            with suppress(ValueError):  # it is parked, or is the one at work
                self._ready.remove((connection, task))


def _may_wait(task: Task, seconds: float) -> bool:
    """Whether the tokens of a step may go with those of the next, which fit into the same frame."""
    if task.op is not Op.STREAM or time.monotonic() - task.sent_at >= seconds:
        return False
    return TOKEN_BYTES * task.session.rows * (len(task.unsent) + 1) <= BODY_LIMITS[Op.STREAM]


def _send(connection: Connection, task: Task, tensors: Sequence[Tensor] = (), flags: int = 0) -> None:
    """Sends the tokens that a task holds, in the order of its steps. Raises WireError."""
    connection.wire.send(task.op, task.handle, _packed(task.unsent), tensors, flags)
    task.unsent.clear()
    task.sent_at = time.monotonic()


def _packed(steps: Sequence[Tensor]) -> bytes:
    """4 bytes a token, step by step."""
    return torch.stack(list(steps)).to("cpu", torch.int32).numpy().tobytes() if steps else b""
