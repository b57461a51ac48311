"""CTranslate2: a C++ runtime for Transformers, on the CPU and on NVIDIA GPUs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbline.throughput.engines.interface import BUILT_IN, DTYPES, Engine, Shape, converted, package, unavailable
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.models.weights import step_weights

NAME = "ctranslate2"


class CTranslate2(Engine):
    """Tokens are called by their ids in the converted model's vocabulary."""

    attentions = BUILT_IN
    allocates_with_torch = False

    @classmethod
    def prepare(cls, manifest: Manifest) -> None:
        with package(NAME):
            import ctranslate2  # noqa: F401

    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        self.prepare(manifest)
        import ctranslate2

        self._weights = step_weights(Path(manifest.folder), DTYPES[config.dtype], manifest.unused)
        try:
            self._generator = ctranslate2.Generator(
                str(converted(manifest, NAME)),
                device=device.type,
                compute_type=config.dtype,
                intra_threads=config.threads,
            )
        except ValueError as error:  # no arithmetic in this dtype on this device
            raise unavailable(f"engine {NAME}: {error}") from None

    def generate(self, prompts: Tensor, count: int, on_token: Callable[[], None] | None = None) -> Tensor:
        found = self._generator.generate_batch(
            [list(map(str, row)) for row in prompts.tolist()],
            max_length=count,
            end_token=[],
            include_prompt_in_result=False,  # reads the prompt in one pass
            callback=on_token and _each_step(len(prompts), on_token),
        )
        return torch.tensor([row.sequences_ids[0] for row in found])

    def logits(self, prompts: Tensor) -> Tensor:
        import ctranslate2

        view = self._generator.forward_batch(prompts.tolist())
        view = view.to_device(ctranslate2.Device.cpu).to(ctranslate2.DataType.float32)
        return torch.from_numpy(np.array(view)[:, -1].copy())

    def weights(self) -> list[Tensor]:
        return self._weights

    def close(self) -> None:
        self._generator.unload_model()
        del self._generator


def _each_step(rows: int, on_token: Callable[[], None]) -> Callable[[Any], bool]:
    """A callback, called for each row's token, that calls `on_token` when each of `rows` has one more."""
    seen = 0

    def callback(_: Any) -> bool:
        nonlocal seen
        seen += 1
        if seen % rows == 0:
            on_token()
        return False  # do not stop

    return callback


ENGINE = CTranslate2
