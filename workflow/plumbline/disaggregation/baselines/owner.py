"""What another process owns for a baseline, whichever system carries the calls: it is built there, and asked there."""

import os
from collections.abc import Callable
from typing import Any, Protocol

import torch

from plumbline.core.run.device import omp_threads


class Owned(Protocol):
    """A model, or programs, with what they keep between calls."""

    def step(self, value: Any) -> Any:
        """What one call computes."""


class Owner:
    """Built and called in the owner's process."""

    def __init__(self, build: Callable[..., Owned], built: dict[str, Any]) -> None:
        """build: a class or function of a module, called with `built`; no weights travel."""
        # of the thread that answers calls, which would follow MKL_NUM_THREADS: Snakemake sets that to a job's cores
        torch.set_num_threads(omp_threads() or 1)
        self._owned = build(**built)

    def step(self, value: Any) -> Any:
        """As what is owned computes it."""
        return self._owned.step(value)

    def process(self) -> int:
        """The id of the process that computes."""
        return os.getpid()

    def threads(self) -> int:
        """How many threads it computes with."""
        return torch.get_num_threads()
