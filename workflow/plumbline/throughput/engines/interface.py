"""What an engine is: a class in a file of this folder, or a class elsewhere such as `my_lab.engines:Speculative`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from plumbline.core import registry
from plumbline.core.errors import UserError
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.settings import EngineConfig

HERE = Path(__file__).parent
KEY = "throughput.grid.engines"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a call is asked to generate."""

    batch: int
    prompt: int
    generated: int


class Engine(ABC):
    """Generates greedily with one model at one shape. Constructed once, called many times."""

    can_compile: ClassVar[bool] = False
    """Whether the engine supports `config.compile`."""
    attentions: ClassVar[tuple[str, ...]] = ("sdpa", "eager")

    @classmethod  # noqa: B027 - most have nothing to import
    def prepare(cls, manifest: Manifest) -> None:
        """Imports what the constructor needs, once, in the process whose forks construct engines."""

    @abstractmethod
    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        """Loads the model. Raises OutcomeError with outcome `unavailable` if the engine cannot run it."""

    @abstractmethod
    def generate(self, prompts: torch.Tensor, count: int, on_token: Callable[[], None] | None = None) -> torch.Tensor:
        """The `count` most likely tokens (batch, count), int64 on the CPU, that follow `prompts` (batch, prompt).

        Does not stop at an end-of-text token. `on_token` is called each time every row has one more token on the CPU,
        so that a clock can be read; without it, nothing is synchronised before the end.
        """

    @abstractmethod
    def logits(self, prompts: torch.Tensor) -> torch.Tensor:
        """Logits (batch, vocabulary), float32 on the CPU, of the token that follows `prompts` (batch, prompt)."""

    @abstractmethod
    def weights(self) -> list[torch.Tensor]:
        """Every weight that a decode step reads in full; the embedding only if the head shares it."""

    @abstractmethod
    def close(self) -> None:
        """Releases threads and GPU memory."""


def load(name: str) -> type[Engine]:
    """The engine `name` of this folder, or the class that `package.module:name` names.

    Raises UserError for an unknown name, listing the known ones, or for a path that does not exist.
    """
    found = registry.find(name, HERE, __package__, attribute="ENGINE", place=KEY)
    if not (isinstance(found, type) and issubclass(found, Engine)):
        raise UserError(f"{KEY}: {name}: is not a subclass of {__name__}.Engine; make it one")
    return found
