"""What engines need that is known before anything runs: packages, files in a format of theirs, a Llama. Light."""

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plumbline.core import registry
from plumbline.throughput.models.llama_config import not_llama

FORMATS = Path(__file__).parent / "formats"
NEEDED = {"ctranslate2": ("ctranslate2",), "llama_cpp": ("xllamacpp", "gguf"), "vllm": ("vllm",)}
"""Engine -> modules of the packages that it needs and that the project does without."""


def needs_conversion(engine: str) -> bool:
    """Whether `engine` reads a format of its own, so that each variant is converted for it first."""
    return engine in registry.names(FORMATS)


def only_runs_llamas(engine: str) -> bool:
    """Whether `engine` only runs models of Llama's architecture."""
    return engine == "lean" or needs_conversion(engine)


def fastest(configs: Iterable[Mapping[str, Any]]) -> str:
    """The engine of this project that is fastest among those that can run all models with these config.json."""
    return "lean" if all(not_llama(config) is None for config in configs) else "generate"


def missing_packages(engine: str) -> list[str]:
    """Modules that `engine` needs and this interpreter does not find. Nothing is imported.

    It is part of the spec: where an engine was unavailable, installing its package makes that result stale.
    """
    return [module for module in NEEDED.get(engine, ()) if not _is_found(module)]


def _is_found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False
