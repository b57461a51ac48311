"""A minimal decoder for Llama-shaped models: static cache, fused projections, no work between two tokens."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from plumbline.throughput.engines.interface import DTYPES, Engine, Shape, check_complete
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.llama import Llama, read_llama
from plumbline.throughput.models.llama_pass import Cache, Pass
from plumbline.throughput.models.load import load_tensors
from plumbline.throughput.models.manifest import Manifest


class Lean(Engine):
    """Reads weights from the files without transformers, and allocates every buffer once per shape."""

    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        self._device, self._config, self._shape = device, config, shape
        check_complete(manifest, "lean")
        torch.set_num_threads(config.threads)
        with torch.inference_mode():
            tensors = load_tensors(manifest, DTYPES[config.dtype], device)
            self._model: Llama = read_llama(Path(manifest.folder), tensors, one_row=shape.batch == 1)
        self._session: _Session | None = None

    @torch.inference_mode()
    def generate(self, prompts: Tensor, count: int, on_token: Callable[[], None] | None = None) -> Tensor:
        torch.set_num_threads(self._config.threads)
        session = self._at(prompts, count)
        session.read(prompts.to(self._device))
        if on_token:
            self._wait(on_token)
        for number in range(1, count):
            session.write(number)
            if on_token:
                self._wait(on_token)
        return session.tokens[:count].T.to("cpu", copy=True)

    @torch.inference_mode()
    def logits(self, prompts: Tensor) -> Tensor:
        torch.set_num_threads(self._config.threads)
        session = self._at(prompts, self._shape.generated)
        session.read(prompts.to(self._device))
        return session.prefill.logits.to("cpu", torch.float32, copy=True)

    def weights(self) -> list[Tensor]:
        return self._model.weights()

    def close(self) -> None:
        self._session = None
        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _at(self, prompts: Tensor, count: int) -> "_Session":
        """The session for prompts of this shape; a new one if the shape changed."""
        batch, prompt = prompts.shape
        wanted = Shape(batch=batch, prompt=prompt, generated=max(count, self._shape.generated))
        if self._session is None or self._session.shape != wanted:
            self._session = None  # frees its buffers before new ones are allocated
            self._session = _Session(self._model, wanted, eager=self._config.attention == "eager")
        return self._session

    def _wait(self, on_token: Callable[[], None]) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        on_token()


class _Session:
    """The cache and the buffers for one shape: `read` a prompt, then `write` one token after another."""

    def __init__(self, model: Llama, shape: Shape, *, eager: bool) -> None:
        self.shape = shape
        cache = Cache(model, shape.batch, shape.prompt + shape.generated)
        self.prefill = Pass(model, cache, shape.batch, shape.prompt, eager=eager)
        self._decode = Pass(model, cache, shape.batch, 1, eager=eager)
        self.tokens = torch.empty(
            shape.generated, shape.batch, dtype=torch.int64, device=model.embedding.device
        )  # generated so far; step-major, so that each step reads and writes contiguous memory
        self._rows = self.tokens.unbind(0)

    def read(self, prompts: Tensor) -> None:
        """Fills the cache with `prompts` (batch, prompt) and computes the first token."""
        self.prefill.run(prompts.reshape(-1), 0)
        torch.argmax(self.prefill.logits, -1, out=self._rows[0])

    def write(self, number: int) -> None:
        """Computes token `number` from the one before."""
        self._decode.run(self._rows[number - 1], self.shape.prompt + number - 1)
        torch.argmax(self._decode.logits, -1, out=self._rows[number])


ENGINE = Lean
