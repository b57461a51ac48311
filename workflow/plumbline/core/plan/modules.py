"""The top level of a module, read from its source: what it binds, and what it does on import. Nothing is imported."""

import ast
import importlib.util
import symtable
import sys
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from plumbline.core.errors import UserError

OURS = __name__.partition(".")[0]
STAGE = f"{OURS}.core.run.stage.stage"
WRAPPERS = {
    *("dataclasses.dataclass", "contextlib.contextmanager", "functools.cache", "functools.lru_cache"),
    *("functools.cached_property", "property", "classmethod", "staticmethod", "abc.abstractmethod"),
    *("torch.no_grad", "torch.enable_grad", "torch.inference_mode"),
}
"""Decorators that do not register the function anywhere and do not read its annotations."""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_PLAIN = (*DEFINITIONS, ast.Assign, ast.AnnAssign, ast.Pass)


class Import(NamedTuple):
    """`import module`, or `from module import name`."""

    module: str
    name: str = ""


class Module:
    """The top level of a module. Raises UserError when it cannot be found or parsed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bindings: dict[str, list[ast.stmt | Import]] = {}
        """Name -> what binds it; members of enums as Outcome.OK."""
        self.effects: list[ast.stmt] = []
        """Statements that may do more than bind a name."""
        self.main: list[ast.stmt] = []
        """What it does when it is run."""
        self.imports: list[Import] = []
        path = source(name)
        if path is None:
            raise UserError(f"module {name}: not found on the Python path ({', '.join(p for p in sys.path if p)})")
        self._text, self.is_package = path.read_text(encoding="utf-8"), path.name == "__init__.py"
        try:
            tree = ast.parse(self._text)
        except SyntaxError as error:
            raise UserError(f"{path}:{error.lineno}: {error.msg}") from None
        for node in tree.body:
            self._take(node)

    @cached_property
    def _tables(self) -> dict[tuple[str, int], symtable.SymbolTable]:
        table = symtable.symtable(self._text, self.name, "exec")
        return {(child.get_name(), child.get_lineno()): child for child in table.get_children()}

    def targets(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
        """Each name that `node` binds, and what it stands for."""
        for alias in node.names:
            if isinstance(node, ast.Import):
                first = alias.name.partition(".")[0]
                yield (alias.asname, Import(alias.name)) if alias.asname else (first, Import(first))
            else:
                parents = [*self.name.split("."), *[""] * self.is_package][: -node.level] if node.level else []
                yield alias.asname or alias.name, Import(".".join(filter(None, [*parents, node.module])), alias.name)

    def full_name(self, decorator: ast.expr) -> str:
        """As functools.cache; empty where that is not certain."""
        first, *rest = chain_of(decorator.func if isinstance(decorator, ast.Call) else decorator) or [""]
        bound = self.bindings.get(first, [Import(first)])
        return ".".join(filter(None, [*bound[0], *rest])) if isinstance(bound[0], Import) and len(bound) == 1 else ""

    def outside(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
        """Names in a top-level definition that may come from outside it."""
        table = self._tables.get((node.name, node.lineno))
        if table is None:  # it stands under a condition
            return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        own = [node.bases, node.keywords] if isinstance(node, ast.ClassDef) else [[node.args, node.returns]]
        outer = [part for many in [node.decorator_list, *own] for part in many if part is not None]
        return {*_outside(table), *(name.id for part in outer for name in ast.walk(part) if isinstance(name, ast.Name))}

    def _take(self, node: ast.stmt) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            self.main.append(node)
        elif not is_inert(node):
            effect = self._has_effect(node)
            self.effects += [node] * effect
            for part in ast.walk(node) if effect else [node]:
                self._bind(part, node)

    def _has_effect(self, node: ast.stmt) -> bool:
        if isinstance(node, DEFINITIONS):
            decorators = {self.full_name(decorator) for decorator in node.decorator_list}
            inside = [*node.keywords, *node.body] if isinstance(node, ast.ClassDef) else []  # keywords: for a metaclass
            acts = [part for part in inside if not isinstance(part, _PLAIN) and not is_inert(part)]
            return bool(acts) or not decorators <= {STAGE, *WRAPPERS}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            stores = [part for part in ast.walk(node) if isinstance(getattr(part, "ctx", None), ast.Store)]
            calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
            return any(map(self._is_ours, calls)) or any(
                isinstance(one, ast.Attribute | ast.Subscript) for one in stores
            )
        return not isinstance(node, ast.Import | ast.ImportFrom)

    def _is_ours(self, call: ast.Call) -> bool:
        """Whether it may call a function of ours, or of the module's own package: that could register its arguments."""
        bound = self.bindings.get((chain_of(call.func) or [""])[0], [])
        tops = {OURS, self.name.partition(".")[0]}
        return any(
            isinstance(one, ast.FunctionDef) or (isinstance(one, Import) and one.module.partition(".")[0] in tops)
            for one in bound
        )

    def _bind(self, part: ast.AST, node: ast.stmt) -> None:
        if isinstance(part, ast.Import | ast.ImportFrom):
            for name, target in self.targets(part):
                self.bindings.setdefault(name, []).append(target)
                self.imports.append(target)
            self.imports += [Import(alias.name) for alias in part.names if isinstance(part, ast.Import)]
        elif isinstance(part, DEFINITIONS):
            self.bindings.setdefault(part.name, []).append(node)
            if isinstance(part, ast.ClassDef) and any(chain_of(base)[-1:] == ["StrEnum"] for base in part.bases):
                body = [item for item in part.body if not is_inert(item)]
                if all(isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant) for item in body):
                    self.bindings |= {f"{part.name}.{ast.unparse(item).partition(' ')[0]}": [item] for item in body}
                    part.body = []
        else:
            for inner in ast.walk(part):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    self.bindings.setdefault(inner.id, []).append(node)


@cache
def source(name: str) -> Path | None:
    """The file of module `name`, found without importing it or its packages; None where there is none."""
    first, *rest = name.split(".")
    spec = importlib.util.find_spec(first)
    if spec is None or spec.origin in (None, "built-in", "frozen"):
        return None
    path = Path(str(spec.origin))
    base = path.parent.joinpath(*rest)
    candidates = (base / "__init__.py", base.with_name(f"{base.name}.py")) if rest else (path,)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def chain_of(node: ast.AST) -> list[str]:
    """`np.linalg.norm` as its three names; empty for what is not names and dots alone."""
    if isinstance(node, ast.Attribute):
        return [*above, node.attr] if (above := chain_of(node.value)) else []
    return [node.id] if isinstance(node, ast.Name) else []


def is_inert(node: ast.AST) -> bool:
    """Whether `node` is a docstring, or a block of imports for annotations alone."""
    if isinstance(node, ast.If):
        return chain_of(node.test)[-1:] == ["TYPE_CHECKING"] and not node.orelse
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _outside(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that may come from outside a function or class; in a class body, even a name that is bound there."""
    for symbol in table.get_symbols():
        if symbol.is_global() or table.get_type() == "class":
            yield symbol.get_name()
    for child in table.get_children():
        yield from _outside(child)
