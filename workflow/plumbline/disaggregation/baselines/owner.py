"""What another process owns for a baseline, whichever system carries the calls: it is built there, and asked there."""

import os
from collections.abc import Callable
from typing import Any, Protocol


class Owned(Protocol):
    """A model, or programs, with what they keep between calls."""

    def step(self, value: Any) -> Any:
        """What one call computes."""


class Owner:
    """Built and called in the owner's process."""

    def __init__(self, build: Callable[..., Owned], built: dict[str, Any]) -> None:
        """build: a class or function of a module, called with `built`; no weights travel."""
        self._owned = build(**built)

    def step(self, value: Any) -> Any:
        """As what is owned computes it."""
        return self._owned.step(value)

    def process(self) -> int:
        """The id of the process that computes."""
        return os.getpid()
