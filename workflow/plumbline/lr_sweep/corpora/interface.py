"""A source of text is a module with `load(settings)`, which returns a `Source`."""

import importlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from plumbline.lr_sweep.settings import CorpusSettings

PYTHON_RELEASE = "{}.{}".format(*sys.version_info)
"""The release of this process, e.g. 3.11. Patch releases change only a few sentences of the documentation."""


class Document(NamedTuple):
    """One text, and whether the source holds it out for validation (None: the source does not say)."""

    name: str
    text: str
    validation: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Documents that can be read once."""

    described: dict[str, Any]
    """A description of the source for the manifest."""
    documents: Iterator[Document]
    """In an order that depends only on the source."""
    expected_bytes: int | None
    """Estimate of the amount of text, for the progress; None when unknown."""


def source(settings: CorpusSettings) -> Source:
    """Opens the source named in the settings."""
    module = importlib.import_module(f"{__package__}.{settings.source}")
    opened: Source = module.load(settings)
    return opened


def within(documents: Iterable[Document], limit_bytes: int | None) -> Iterator[Document]:
    """The documents that fit into `limit_bytes` of UTF-8 text, up to the first that does not; None: all."""
    left = limit_bytes
    for document in documents:
        if left is not None:
            left -= len(document.text.encode())
            if left < 0:
                return
        yield document
