"""Which source decides a result: the modules a stage reaches by import, each with a digest of its code."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from plumbline.core.errors import UserError


def code_of(modules: Iterable[str]) -> dict[str, str]:
    """Module name -> 12 hex digits of its code, for `modules` and all they import of their own package and ours.

    Found statically: nothing is imported. Comments, formatting and docstrings do not count.
    Raises UserError for a module that cannot be found or parsed.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            digest, imports = _read(name)
            found[name] = digest
            waiting.extend(imports)
    return dict(sorted(found.items()))


@cache
def _read(name: str) -> tuple[str, tuple[str, ...]]:
    path = _source(name)
    if path is None:
        raise UserError(f"module {name}: not found on the Python path ({', '.join(p for p in sys.path if p)})")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: {error.msg}") from None
    imports = tuple(sorted(_imports(tree, name, is_package=path.name == "__init__.py")))
    _strip_docstrings(tree)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12], imports


def _imports(tree: ast.Module, name: str, *, is_package: bool) -> set[str]:
    """Modules of the same top-level package, or of this one, that `tree` imports, with the packages that hold them."""
    package = name if is_package else name.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    tops = {name.partition(".")[0], __name__.partition(".")[0]}
    parts = (item.split(".") for item in [*names, name] if item.partition(".")[0] in tops)
    prefixes = {".".join(item[:length]) for item in parts for length in range(1, len(item) + 1)}
    return {prefix for prefix in prefixes if prefix != name and _source(prefix) is not None}


@cache
def _source(name: str) -> Path | None:
    """The file of module `name`, found without importing it or its packages; None where there is none."""
    first, *rest = name.split(".")
    spec = importlib.util.find_spec(first)
    if spec is None or spec.origin in (None, "built-in", "frozen"):
        return None
    path = Path(str(spec.origin))
    if not rest:
        return path
    base = path.parent.joinpath(*rest)
    candidates = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body.pop(0)
