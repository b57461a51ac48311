"""An engine is a way to generate: a class in a file of this folder, or `my_lab.engines:Speculative` from elsewhere."""

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
    """What a call generates."""

    batch: int
    prompt: int
    generated: int


class Engine(ABC):
    """Generates greedily at one shape with one model. Made once, called many times."""

    can_compile: ClassVar[bool] = False
    """Whether `config.compile` makes a difference."""
    attentions: ClassVar[tuple[str, ...]] = ("sdpa", "eager")

    @classmethod  # noqa: B027 - most have nothing to import
    def prepare(cls, manifest: Manifest) -> None:
        """Imports what making an engine would import: once, in the process whose forks make them."""

    @abstractmethod
    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        """Loads the model. Raises OutcomeError with outcome `unavailable` for a model that the engine cannot run."""

    @abstractmethod
    def generate(self, prompts: torch.Tensor, count: int, on_token: Callable[[], None] | None = None) -> torch.Tensor:
        """The `count` most likely tokens (batch, count), int64 on the CPU, that follow `prompts` (batch, prompt).

        Goes on behind an end-of-text token. `on_token` is called when a further token of every row is there, on the
        CPU, so that a clock can be read; without it nothing is waited for before the end.
        """

    @abstractmethod
    def logits(self, prompts: torch.Tensor) -> torch.Tensor:
        """Logits (batch, vocabulary), float32 on the CPU, of the token that follows `prompts` (batch, prompt)."""

    @abstractmethod
    def weights(self) -> list[torch.Tensor]:
        """Every weight that a decode step reads whole, the embedding only where the head shares it."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of what the process would otherwise keep: threads, GPU memory."""


def load(name: str) -> type[Engine]:
    """The engine `name` of this folder, or the class that `package.module:name` names.

    Raises UserError for an unknown name, listing those that exist, or a path that leads nowhere.
    """
    found = registry.find(name, HERE, __package__, attribute="ENGINE", place=KEY)
    if not (isinstance(found, type) and issubclass(found, Engine)):
        raise UserError(f"{KEY}: {name}: is not a subclass of {__name__}.Engine; make it one")
    return found
