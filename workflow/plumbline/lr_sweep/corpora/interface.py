"""A source of text is a module with `load(settings)`, which returns a `Source`."""

import importlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from plumbline.lr_sweep.settings import CorpusSettings

PYTHON_RELEASE = "{}.{}".format(*sys.version_info)
"""Of this process, 3.11. Patches of a release alter a sentence of its documentation here and there: no other corpus."""


class Document(NamedTuple):
    """One text, and whether the source itself keeps it for validation (None: the source says nothing)."""

    name: str
    text: str
    validation: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Text to be read once."""

    described: dict[str, Any]
    """What was read, for the manifest."""
    documents: Iterator[Document]
    """In an order that depends on nothing but the source."""
    expected_bytes: int | None
    """About how much text there will be, for the progress; None where that is unknown."""


def source(settings: CorpusSettings) -> Source:
    """The source that the settings name, opened."""
    module = importlib.import_module(f"{__package__}.{settings.source}")
    opened: Source = module.load(settings)
    return opened


def within(documents: Iterable[Document], limit_bytes: int | None) -> Iterator[Document]:
    """The documents before the first that would take their text over `limit_bytes` of UTF-8; None: all."""
    left = limit_bytes
    for document in documents:
        if left is not None:
            left -= len(document.text.encode())
            if left < 0:
                return
        yield document
