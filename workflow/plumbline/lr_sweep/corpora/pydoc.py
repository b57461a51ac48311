"""The documentation that comes with Python: the reference manual's topics and the standard library's docstrings.

The text is the same for a version of Python whoever packaged it: tests and the parts of the library that some
distributions package separately are not read. Only the manual, a table of strings, is imported.
"""

import ast
import importlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.lr_sweep.corpora.interface import Document, Source, within
from plumbline.lr_sweep.settings import CorpusSettings

SHORTEST = 80
"""Shorter texts, in characters, are skipped."""
PACKAGED_SEPARATELY = frozenset(
    {"distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo", "venv"}
)
# Codec tables and the manual itself: a lot to parse with almost no docstrings.
WITHOUT_PROSE = frozenset({"encodings", "pydoc_data"})
TESTS = frozenset({"test", "tests"})
HEADING = re.compile(r"^\S.*\n(?P<line>[*=\-~^\"])(?P=line){2,}\n", re.MULTILINE)


def load(settings: CorpusSettings) -> Source:
    """The manual's sections ordered by topic, then the docstrings ordered by module; each text once.

    Raises UserError when this Python comes without its manual or the sources of its library.
    """
    library = Path(sysconfig.get_path("stdlib"))
    if not (library / "inspect.py").is_file():
        raise _missing(f"{library}: does not contain the sources of the standard library")
    documents = within(_distinct(chain(_manual(), _docstrings(library))), settings.limit_bytes)
    return Source(described={"kind": "pydoc"}, documents=documents, expected_bytes=None)


def _manual() -> Iterator[Document]:
    """The sections of the topics; whole topics would overlap, because some contain others."""
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:
        raise _missing("pydoc_data: this Python comes without its manual") from None
    for topic, text in sorted(topics.items()):
        starts = [0, *(heading.start() for heading in HEADING.finditer(text))]
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True)):
            yield Document(f"{topic}#{number}", text[start:end])


def _docstrings(library: Path) -> Iterator[Document]:
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if parts[0] in sys.stdlib_module_names - PACKAGED_SEPARATELY - WITHOUT_PROSE and TESTS.isdisjoint(parts):
            yield from _documented(ast.parse(path.read_bytes()), ".".join(parts).removesuffix(".__init__"))


def _documented(node: ast.AST, name: str) -> Iterator[Document]:
    """The docstring of a module, class or function, and those of everything defined in it."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield Document(name, ast.get_docstring(node, clean=False) or "")
    for field in ("body", "orelse", "handlers", "finalbody"):
        for inner in getattr(node, field, ()) if isinstance(node, ast.AST) else ():
            if isinstance(inner, ast.stmt | ast.excepthandler):
                yield from _documented(inner, f"{name}.{inner.name}" if hasattr(inner, "name") else name)


def _distinct(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents cleaned up, without short ones and without repetitions, even under another heading."""
    seen = set()
    for document in documents:
        # A docstring may contain half a surrogate pair, which UTF-8 cannot encode.
        text = inspect.cleandoc(document.text).encode(errors="ignore").decode().strip()
        body = HEADING.sub("", text).strip()
        if len(text) >= SHORTEST and body not in seen:
            seen.add(body)
            yield Document(document.name, text)


def _missing(what: str) -> UserError:
    return UserError(f"{what}; set lr_sweep.corpus.source to files or hub, or use another Python")
