"""What an engine is: a class in a file of this folder, or a class elsewhere such as `my_lab.engines:Speculative`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from plumbline.core import registry
from plumbline.core.errors import UserError, one_line
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.models.unmatched import listed

if TYPE_CHECKING:
    from plumbline.throughput.measurement.counted import Counted

HERE = Path(__file__).parent
KEY = "throughput.grid.engines"
BUILT_IN = ("built-in",)
"""`attentions` of an engine that comes with its own kernels: the setting `attention` is not about them."""
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
    allocates_with_torch: ClassVar[bool] = True
    """Whether torch knows how much GPU memory the engine uses."""

    @classmethod  # noqa: B027 - most have nothing to import
    def prepare(cls, manifest: Manifest) -> None:
        """Imports what the constructor needs, once, in the process whose forks construct engines.

        Raises OutcomeError with outcome `unavailable` if that is not installed.
        """

    @abstractmethod
    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        """Loads the model. Raises OutcomeError with outcome `unavailable` if the engine cannot run it."""

    @abstractmethod
    def generate(self, prompts: torch.Tensor, count: int, on_token: Callable[[], None] | None = None) -> torch.Tensor:
        """The `count` most likely tokens (batch, count), int64 on the CPU, that follow `prompts` (batch, prompt).

        Does not stop at an end-of-text token. `on_token` is called each time every row has one more token on the CPU,
        so that a clock can be read; without it, nothing is synchronised before the end. An engine that does not know
        when a token arrives never calls it: the trial then has no latencies.
        """

    @abstractmethod
    def logits(self, prompts: torch.Tensor) -> torch.Tensor:
        """Logits (batch, vocabulary), float32 on the CPU, of the token that follows `prompts` (batch, prompt).

        A constant may be added to a row: log probabilities will do.
        """

    @abstractmethod
    def weights(self) -> list[torch.Tensor]:
        """Every weight that a decode step reads in full; the embedding only if the head shares it.

        On the device `meta` where the engine does not hold them as torch's tensors.
        """

    def count_step(self, prompts: torch.Tensor, count: int) -> "Counted | None":
        """What a decode step reads and computes while it generates `count` tokens after `prompts`, counted.

        None where the engine cannot count: then it follows from the sizes of a Llama, and is unknown for other models.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Releases threads and GPU memory."""


def unavailable(reason: str) -> OutcomeError:
    """What an engine raises that cannot run a model, a dtype or a shape."""
    return OutcomeError(Outcome.UNAVAILABLE, reason)


def check_complete(manifest: Manifest, engine: str) -> None:
    """Raises OutcomeError where the files lack weights, which only transformers' engines draw at random."""
    if manifest.missing:
        raise unavailable(f"engine {engine} needs every weight, and the files lack {listed(manifest.missing)}")


@contextmanager
def package(engine: str, install: str = "plumbline[engines]") -> Iterator[None]:
    """An import within that fails is outcome `unavailable`; its message says what to install."""
    try:
        yield
    except ImportError as error:
        raise unavailable(f"engine {engine} is not installed ({one_line(error)}); pip install '{install}'") from None


def converted(manifest: Manifest, engine: str, dtype: str | None = None) -> Path:
    """The folder with the variant as the stage `convert` wrote it for `engine`.

    Raises UserError when the manifest names none; OutcomeError, unavailable, when its weights are not `dtype`.
    """
    found = manifest.converted
    if found is None or found.engine != engine:
        raise UserError(f"{manifest.variant}: is not converted for engine {engine}; run the stage throughput.convert")
    if dtype not in (None, found.dtype):
        raise unavailable(f"engine {engine} was given {found.dtype} weights, not {dtype}")
    return Path(found.folder)


def load(name: str) -> type[Engine]:
    """The engine `name` of this folder, or the class that `package.module:name` names.

    Raises UserError for an unknown name, listing the known ones, or for a path that does not exist.
    """
    found = registry.find(name, HERE, __package__, attribute="ENGINE", place=KEY)
    if not (isinstance(found, type) and issubclass(found, Engine)):
        raise UserError(f"{KEY}: {name}: is not a subclass of {__name__}.Engine; make it one")
    return found
