"""The top level of a module, read from its source: what it binds, and what it does on import. Nothing is imported."""

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cache
from pathlib import Path
from types import MappingProxyType
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
PURE = {
    *(STAGE, *WRAPPERS, "pydantic.field_validator", "pydantic.model_validator"),
    *("dataclasses.field", "pydantic.Field", "pydantic.ConfigDict", "typing.TypeVar", "typing.ParamSpec"),
    *("functools.partial", "logging.getLogger", "pathlib.Path", "re.compile", "types.MappingProxyType"),
    *("pydantic.AfterValidator", "pydantic.BeforeValidator", "pydantic.PlainSerializer"),
    *("pydantic.Discriminator", "pydantic.Tag", f"{OURS}.core.settings.WrittenLike"),
    *("numpy.dtype", "dict", "frozenset", "list", "tuple"),
}
"""What may be called when a module is imported and only builds a value: it changes nothing and calls none of ours."""
_BASES = {
    *("abc.ABC", "enum.IntEnum", "enum.StrEnum", "pydantic.BaseModel", "pydantic.RootModel", "Exception"),
    *("torch.nn.Module", "torch.nn.Sequential", "torch.utils._python_dispatch.TorchDispatchMode"),
    *("typing.Generic", "typing.NamedTuple", "typing.Protocol"),
}
"""Base classes of others that do nothing more to a subclass."""
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
        self.is_package = path.name == "__init__.py" or path.is_dir()
        try:
            tree = ast.parse("" if path.is_dir() else path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            raise UserError(f"{path}:{error.lineno}: {error.msg}") from None
        self._read = _reads(tree)
        body = [node for node in tree.body if not is_inert(node)]
        for node in body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
                self.main.append(node)
            else:
                self.effects += [node] * self._has_effect(node)
                self._bind(node)
        if self.effects:  # what is computed before or after them can depend on them
            computed = [node for node in body if isinstance(node, ast.Assign | ast.AnnAssign) and _reads(node.value)]
            self.effects = [node for node in body if node in self.effects or node in computed]
        for name, bound in self.bindings.items():
            if len(bound) > 1:  # which of them a reader sees is a matter of order
                self.bindings[name] = [*(one for one in bound if isinstance(one, Import)), *body]

    def targets(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
        """Each name that `node` binds, and what it stands for."""
        for alias in node.names:
            if isinstance(node, ast.Import):
                first = alias.name.partition(".")[0]
                yield (alias.asname, Import(alias.name)) if alias.asname else (first, Import(first))
            else:
                parents = [*self.name.split("."), *[""] * self.is_package][: -node.level] if node.level else []
                yield alias.asname or alias.name, Import(".".join(filter(None, [*parents, node.module])), alias.name)

    def full_name(self, node: ast.AST, local: Mapping[str, Sequence[ast.stmt | Import]] = MappingProxyType({})) -> str:
        """As functools.cache, of a name, or of what is called or subscripted; empty where it is not certain.

        local: imports inside a function, which come first.
        """
        while isinstance(node, ast.Call | ast.Subscript):
            node = node.func if isinstance(node, ast.Call) else node.value
        first, *rest = chain_of(node) or [""]
        bound = local.get(first) or self.bindings.get(first, [Import(first)])
        return ".".join(filter(None, [*bound[0], *rest])) if isinstance(bound[0], Import) and len(bound) == 1 else ""

    def registers(self, node: ast.ClassDef) -> bool:
        """Whether defining `node`, or a subclass of it, may do more than that, such as enter it in a registry."""
        hooks = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        bases = {name for name in map(self.full_name, node.bases) if name and not self._is_own(name)}
        metaclass = any(keyword.arg in (None, "metaclass") for keyword in node.keywords)
        return metaclass or not bases <= _BASES or not hooks.isdisjoint({"__init_subclass__", "__set_name__"})

    def _is_own(self, name: str) -> bool:
        return name.partition(".")[0] in (OURS, self.name.partition(".")[0])

    def _has_effect(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Import | ast.ImportFrom):  # of another package, for what the import does
            dotted = [
                alias for alias in node.names if isinstance(node, ast.Import) and "." in alias.name and not alias.asname
            ]
            outer = {name for name, target in self.targets(node) if not self._is_own(target.module)}
            return bool(outer) and (bool(dotted) or not outer <= self._read)
        return any(map(self._acts, _reached(node, scopes=True)))

    def _acts(self, part: ast.AST) -> bool:
        """Whether `part`, which runs when the module is imported, may do more than build a value and bind it."""
        if isinstance(part, ast.Call):
            return not (self.full_name(part) in PURE or self._is_settings(ast.unparse(part.func)))
        if isinstance(part, DEFINITIONS):
            registers = isinstance(part, ast.ClassDef) and self.registers(part)
            return registers or not {self.full_name(decorator) for decorator in part.decorator_list} <= PURE
        if isinstance(part, ast.stmt):
            return not isinstance(part, _PLAIN) and not is_inert(part)
        return isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store)

    def _is_settings(self, name: str) -> bool:
        """Whether `name` is a settings class, of this module or imported from one of ours: an instance checks its
        values, and that is all.
        """
        if self.full_name(ast.Name(name)) == f"{OURS}.core.settings.Settings":
            return True
        found = self.bindings.get(name, [])
        if len(found) != 1:
            return False
        if isinstance(one := found[0], Import):
            return bool(one.name) and self._is_own(one.module) and parsed(one.module)._is_settings(one.name)
        if not isinstance(one, ast.ClassDef) or not one.bases:
            return False
        is_hooked = any(re.match("__|model_", getattr(part, "name", "")) for part in one.body)
        return not is_hooked and all(self._is_settings(ast.unparse(base)) for base in one.bases)

    def _bind(self, node: ast.stmt) -> None:
        for part in _reached(node, scopes=False):
            if isinstance(part, ast.Import | ast.ImportFrom):
                for name, target in self.targets(part):
                    self._add(name, target)
                    self.imports.append(target)
                self.imports += [Import(alias.name) for alias in part.names if isinstance(part, ast.Import)]
            elif isinstance(part, ast.ClassDef) and any(chain_of(base)[-1:] == ["StrEnum"] for base in part.bases):
                self._add(part.name, self._without_members(part, node))
            elif isinstance(part, DEFINITIONS):
                self._add(part.name, node)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                self._add(part.id, node)

    def _add(self, name: str, bound: ast.stmt | Import) -> None:
        if bound not in self.bindings.setdefault(name, []):
            self.bindings[name].append(bound)

    def _without_members(self, enum: ast.ClassDef, node: ast.stmt) -> ast.stmt:
        """Binds each member of `enum`, and all in their order; gives the class without them. Else gives `node`."""
        body = [item for item in enum.body if not is_inert(item)]
        members = [item for item in body if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)]
        if members != body:
            return node
        self.bindings |= {f"{enum.name}.{ast.unparse(item.targets[0])}": [item] for item in members}
        self.bindings[f"{enum.name}.*"] = [ast.Expr(ast.Tuple([item.targets[0] for item in members]))]
        bare = copy(enum)
        bare.body = []
        return bare


@cache
def parsed(name: str) -> Module:
    """The module, read once. Raises UserError as Module does."""
    return Module(name)


@cache
def source(name: str) -> Path | None:
    """The file of module `name`, found without importing it or its packages; None where there is none.

    Of a package without `__init__.py`, which Python imports too, it is the folder.
    """
    first, *rest = name.split(".")
    spec = importlib.util.find_spec(first)
    if spec is None or spec.origin in ("built-in", "frozen"):
        return None
    if spec.origin is not None and not rest:
        return Path(spec.origin)
    folders = [Path(spec.origin).parent] if spec.origin else map(Path, spec.submodule_search_locations or ())
    for folder in folders:
        base = folder.joinpath(*rest)
        for candidate in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if candidate.is_file():
                return candidate
        if base.is_dir():
            return base
    return None


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


def _reads(node: ast.AST | None) -> set[str]:
    """Names that are read in `node`."""
    parts = ast.walk(node) if node else ()
    return {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}


def _reached(node: ast.AST, *, scopes: bool) -> Iterator[ast.AST]:
    """What of `node` runs with it: not the bodies of functions. scopes: False leaves out what binds no name beside it:
    all inside definitions, and the variables of comprehensions."""
    yield node
    inner: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inner = [*node.decorator_list, node.args, *filter(None, [node.returns])]
    elif isinstance(node, ast.Lambda):
        inner = [node.args]
    elif isinstance(node, ast.comprehension):
        inner = [node.iter, *node.ifs]
    for part in inner if scopes or not isinstance(node, DEFINITIONS) else ():
        yield from _reached(part, scopes=scopes)
