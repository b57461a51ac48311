"""What stands at the top of a module, and what each definition says and names. Read from source; nothing is imported.

Left out: docstrings, comments, log lines, annotations of functions. The text of a user's mistake is kept apart.
"""

import ast
import importlib.util
import symtable
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.core.errors import UserError

OURS = __name__.partition(".")[0]
STAGE = f"{OURS}.core.run.stage.stage"
WRAPPERS = {
    *("dataclasses.dataclass", "contextlib.contextmanager", "functools.cache", "functools.lru_cache"),
    *("functools.cached_property", "property", "classmethod", "staticmethod", "abc.abstractmethod"),
    *("torch.no_grad", "torch.enable_grad", "torch.inference_mode"),
}
"""Decorators that register what they decorate nowhere and do not read its annotations."""
COMPUTED = {"globals", "eval", "exec", "__subclasses__", "import_module", "__import__"}
"""Who uses one of these reaches names that the source does not show."""
MISTAKES = {"UserError", "ValueError"}
"""Exceptions whose text ends in no output, unless something catches one and keeps it."""
CALLED = "()"
"""Ends a chain of names that is called, or annotates: of an enum, this alone reaches no member."""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


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
        text, self.is_package = path.read_text(encoding="utf-8"), path.name == "__init__.py"
        try:
            tree, table = ast.parse(text), symtable.symtable(text, name, "exec")
        except SyntaxError as error:
            raise UserError(f"{path}:{error.lineno}: {error.msg}") from None
        for node in tree.body:
            self._take(node)
        self._tables = {(child.get_name(), child.get_lineno()): child for child in table.get_children()}

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
            return not decorators <= {STAGE, *WRAPPERS} or bool(getattr(node, "keywords", ()))  # of a metaclass
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
            return any(map(self._is_ours, calls)) or not all(isinstance(one, ast.Name | ast.Tuple) for one in targets)
        return not isinstance(node, ast.Import | ast.ImportFrom)

    def _is_ours(self, call: ast.Call) -> bool:
        """Whether it may call a function of this package, which could register what it is given."""
        bound = self.bindings.get((chain_of(call.func) or [""])[0], [])
        return any(not isinstance(one, Import) or one.module.startswith(OURS) for one in bound)

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
            for name in ast.walk(part):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    self.bindings.setdefault(name.id, []).append(node)


class Definition:
    """Some statements of a module: what they say, and what they name."""

    def __init__(self, module: Module, statements: list[ast.stmt | Import]) -> None:
        self.said: list[str] = []
        self.texts: list[str] = []
        """Of the mistakes it raises."""
        self.keeps_texts = False
        """Whether it catches mistakes and does something with their text."""
        self.chains: set[tuple[str, ...]] = set()
        """Names from outside, each with the attributes read from it: ("np", "linalg", "norm")."""
        self.imports: dict[str, list[Import]] = {}
        """What is imported inside functions, by name."""
        self._module = module
        self._texts: set[ast.AST] = set()
        for node in statements:
            self._named: set[tuple[str, ...]] = set()
            self._visit(node)
            outside = module.outside(node) if isinstance(node, DEFINITIONS) else {chain[0] for chain in self._named}
            self.chains |= {chain for chain in self._named if chain[0] in outside or chain[0] in self.imports}

    def _visit(self, value: Any) -> None:
        if isinstance(value, list):
            self.said.append(f"[{len(value)}")
            for item in value:
                self._visit(item)
        elif not isinstance(value, ast.AST):
            self.said.append(repr(value))
        elif not is_inert(value) and not self._only_logs(value):
            self.said.append(type(value).__name__)
            getattr(self, f"_{type(value).__name__}", self._fields)(value)

    def _fields(self, node: ast.AST, *, without: str = "") -> None:
        for name in node._fields:
            if name != without:
                self._visit(getattr(node, name, None))

    def _Name(self, node: ast.AST, *end: str) -> None:
        if chain := chain_of(node):
            self.said.append(".".join([*chain, *end]))
            self._named.add((*chain, *end))
        else:
            self.chains |= {(name,) for name in [getattr(node, "attr", "")] if name in COMPUTED}
            self._fields(node)

    _Attribute = _Name

    def _Call(self, node: ast.Call) -> None:
        self._Name(node.func, CALLED) if chain_of(node.func) else self._visit(node.func)
        self._visit([node.args, node.keywords])

    def _Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.said.append(ast.dump(node))
        for name, target in self._module.targets(node):
            self.imports.setdefault(name, []).append(target)

    _ImportFrom = _Import

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        read = not WRAPPERS.issuperset(map(self._module.full_name, node.decorator_list))
        for part in ast.walk(node.args):
            if isinstance(part, ast.arg):
                part.annotation = part.annotation if read else None
        self._fields(node, without="" if read else "returns")

    _AsyncFunctionDef = _FunctionDef

    def _ClassDef(self, node: ast.ClassDef) -> None:
        """Annotations in a class count: pydantic reads them."""
        for part in node.body:
            if isinstance(part, ast.AnnAssign):
                self._annotation(part.annotation)
        self._fields(node)

    def _annotation(self, node: ast.AST) -> None:
        if chain_of(node):
            self._Name(node, CALLED)
        elif isinstance(node, ast.Subscript | ast.BinOp | ast.Tuple):
            for child in ast.iter_child_nodes(node):
                self._annotation(child)
        else:
            self._visit(node)
            if isinstance(node, ast.Constant):  # a name in quotes
                self.chains.add((str(node.value).partition(".")[0], CALLED))

    def _AnnAssign(self, node: ast.AnnAssign) -> None:
        self._fields(node, without="annotation")

    def _Raise(self, node: ast.Raise) -> None:
        if isinstance(node.exc, ast.Call) and MISTAKES & {*chain_of(node.exc.func)[-1:]}:
            self._texts.update(part for argument in node.exc.args for part in _literal(argument))
        self._fields(node)

    def _Constant(self, node: ast.Constant) -> None:
        (self.texts if node in self._texts else self.said).append(repr(node.value))

    def _ExceptHandler(self, node: ast.ExceptHandler) -> None:
        caught = {part.id for part in ast.walk(node.type or node) if isinstance(part, ast.Name)}
        if {*MISTAKES, "Exception", "BaseException"} & caught:
            self.keeps_texts |= any(_is_kept(part, node.name) for part in node.body)
        self._fields(node)

    def _only_logs(self, node: ast.AST) -> bool:
        """Whether `node` is a log line with no call in it that could do more."""
        call = node.value if isinstance(node, ast.Expr) else None
        if not isinstance(call, ast.Call) or len(chain_of(call.func)) != 2:
            return False
        bound = self._module.bindings.get(chain_of(call.func)[0], [])
        loggers = [ast.unparse(b.value)[:18] == "logging.getLogger(" for b in bound if isinstance(b, ast.Assign)]
        return loggers == [True] * len(bound) != [] and sum(isinstance(part, ast.Call) for part in ast.walk(call)) == 1


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
    """Whether `node` is a docstring, or imports names for annotations alone."""
    if isinstance(node, ast.If):
        return chain_of(node.test)[-1:] == ["TYPE_CHECKING"] and not node.orelse
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _outside(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that may come from outside a function or class; a class's body falls back on what is outside."""
    for symbol in table.get_symbols():
        if symbol.is_global() or table.get_type() == "class":
            yield symbol.get_name()
    for child in table.get_children():
        yield from _outside(child)


def _literal(argument: ast.expr) -> list[ast.Constant]:
    """The parts of an exception's argument that are text and nothing else."""
    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    return [part for part in parts if isinstance(part, ast.Constant)]


def _is_kept(node: ast.AST, error: str | None) -> bool:
    """Whether the caught `error` is used for more than another mistake's text."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and MISTAKES & {*chain_of(node.exc.func)[-1:]}:
        return False
    if isinstance(node, ast.Name):
        return node.id == error
    return any(_is_kept(child, error) for child in ast.iter_child_nodes(node))
