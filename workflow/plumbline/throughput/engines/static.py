"""transformers' `generate` with a static cache, optionally compiled."""

from typing import Any, ClassVar

import torch

from plumbline.throughput.engines.generate import Generate
from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest


class Static(Generate):
    """The cache has its final size from the start. Compilation covers the decode step, not the prefill."""

    can_compile: ClassVar[bool] = True

    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        super().__init__(manifest, device, config, shape)
        self._arguments: dict[str, Any] = {
            "cache_implementation": "static",
            "max_cache_len": shape.prompt + shape.generated,
            "disable_compile": not config.compile,
        }
        if config.compile:
            from transformers import CompileConfig

            compilation = CompileConfig(dynamic=False, mode="reduce-overhead" if device.type == "cuda" else "default")
            compilation._compile_all_devices = True  # type: ignore[assignment]  # else transformers does not compile on the CPU
            self._arguments["compile_config"] = compilation

    def _cache(self) -> dict[str, Any]:
        return self._arguments

    def close(self) -> None:
        super().close()
        torch.compiler.reset()


ENGINE = Static
