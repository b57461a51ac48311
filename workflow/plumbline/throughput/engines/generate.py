"""transformers' `generate` with its dynamic cache, which the other engines must agree with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.throughput.engines.interface import DTYPES, Engine, Shape
from plumbline.throughput.measurement.counted import Counted, count_steps
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.load import import_transformers, load_transformers
from plumbline.throughput.models.manifest import Manifest


class Generate(Engine):
    """Greedy, with no end-of-text token: rows do not stop at it, and no logit is suppressed to avoid it."""

    @classmethod
    def prepare(cls, manifest: Manifest) -> None:
        import_transformers(manifest)

    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        self._config, self._shape, self._device = config, shape, device
        torch.set_num_threads(config.threads)
        self._model = load_transformers(manifest, DTYPES[config.dtype], device, config.attention)

    @torch.inference_mode()
    def generate(self, prompts: Tensor, count: int, on_token: Callable[[], None] | None = None) -> Tensor:
        torch.set_num_threads(self._config.threads)
        streamer = {"streamer": _Steps(on_token)} if on_token else {}
        found = self._call(prompts, count, **streamer, **self._cache())
        return found[:, prompts.shape[1] :].to("cpu", copy=True)

    @torch.inference_mode()
    def logits(self, prompts: Tensor) -> Tensor:
        torch.set_num_threads(self._config.threads)
        found = self._model(prompts.to(self._device), use_cache=False, logits_to_keep=1)
        return found.logits[:, -1].to("cpu", torch.float32, copy=True)

    def weights(self) -> list[Tensor]:
        looked_up = {id(module.weight) for module in self._model.modules() if isinstance(module, torch.nn.Embedding)}
        head = self._model.get_output_embeddings()
        shared = {id(head.weight)} if head is not None else set()
        return [weight for weight in self._model.parameters() if id(weight) not in looked_up - shared]

    @torch.inference_mode()
    def count_step(self, prompts: Tensor, count: int) -> Counted:
        steps = max(count - 1, 1)
        return count_steps(self._model, lambda: self._call(prompts, steps + 1), steps)

    def close(self) -> None:
        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _call(self, prompts: Tensor, count: int, **more: Any) -> Tensor:
        found: Tensor = self._model.generate(  # type: ignore[operator]
            prompts.to(self._device),
            attention_mask=torch.ones_like(prompts, device=self._device),
            max_new_tokens=count,
            min_new_tokens=count,
            **more,
        )
        return found

    def _cache(self) -> dict[str, Any]:
        """Arguments of `generate` that select its cache."""
        return {}


class _Steps:
    """A streamer that calls back for each token; `generate` passes it the prompt first."""

    def __init__(self, on_token: Callable[[], None]) -> None:
        self._on_token, self._prompt_came = on_token, False

    def put(self, tokens: Tensor) -> None:
        """Called with the prompt, then with each step's tokens, on the CPU."""
        if self._prompt_came:
            self._on_token()
        self._prompt_came = True

    def end(self) -> None:
        """Called after the last token."""


ENGINE = Generate
