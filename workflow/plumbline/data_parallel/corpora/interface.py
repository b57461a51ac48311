"""A source of sentence pairs is a module with `load(settings)`, which returns a `Source`."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from plumbline.data_parallel.settings import CorpusSettings


class Pair(NamedTuple):
    """A German sentence and its English translation. split: train, validation, test or held_out."""

    split: str
    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Sentence pairs that can be read once."""

    described: dict[str, Any]
    """A description of the source for the manifest."""
    pairs: Iterator[Pair]
    """In an order that depends only on the source."""


def source(settings: CorpusSettings) -> Source:
    """Opens the source named in the settings."""
    module = importlib.import_module(f"{__package__}.{settings.source}")
    opened: Source = module.load(settings)
    return opened
