"""What a definition says and which names it reaches.

Left out: docstrings, comments, log lines, annotations of functions. The text of a user's mistake is kept apart.
"""

import ast
import re
from collections.abc import Sequence
from typing import Any

from plumbline.core.plan.modules import DEFINITIONS, OURS, WRAPPERS, Import, Module, chain_of, is_inert

FOUND_BY_NAME = {"import_module", "__subclasses__"}
COMPUTED = {*FOUND_BY_NAME, "__import__", "globals", "eval", "exec"}
"""Code that uses one of these can reach definitions that it does not name."""
MISTAKES = {"UserError", "ValueError"}
"""Exceptions whose text reaches no output, unless something catches them and keeps it."""
CALLED = "()"
"""Ends a chain of names that is called or used as an annotation. Of an enum, that reaches no member: `Outcome(text)`
gives back the member that `text` names, and code that treats this one differently names it."""


class Definition:
    """Some statements of a module: what they say and what they name."""

    def __init__(self, module: Module, statements: Sequence[ast.stmt | Import]) -> None:
        self.said: list[str] = []
        self.texts: list[str] = []
        """Of the mistakes it raises."""
        self.keeps_texts = False
        """Whether it catches mistakes and keeps their text."""
        self.is_computed = False
        """Whether it reaches definitions that it does not name."""
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
        else:
            getattr(self, f"_{type(value).__name__}", self._fields)(value)

    def _fields(self, node: ast.AST, *, without: str = "") -> None:
        self.said.append(type(node).__name__)
        for name in node._fields:
            if name != without:
                self._visit(getattr(node, name, None))

    def _Name(self, node: ast.AST, *end: str) -> None:
        if chain := chain_of(node):
            self.said.append(".".join([*chain, *end]))
            self._named.add((*chain, *end))
        else:
            self._fields(node)
        name = chain[0] if len(chain) == 1 else getattr(node, "attr", "")
        is_registry = self._module.name.startswith(f"{OURS}.") and name == "import_module"  # a target names its modules
        self.is_computed |= name in (FOUND_BY_NAME if chain[1:] or not chain else COMPUTED) and not is_registry

    _Attribute = _Name

    def _Expr(self, node: ast.Expr | ast.If) -> None:
        if not is_inert(node) and not (isinstance(node, ast.Expr) and self._only_logs(node.value)):
            self._fields(node)

    _If = _Expr

    def _Call(self, node: ast.Call) -> None:
        self.said.append("Call")
        self._Name(node.func, CALLED) if chain_of(node.func) else self._visit(node.func)
        self._visit([node.args, node.keywords])

    def _Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.said.append(ast.dump(node))
        for name, target in self._module.targets(node):
            self.imports.setdefault(name, []).append(target)
        if isinstance(node, ast.Import):
            self.imports.setdefault("", []).extend(Import(alias.name) for alias in node.names)

    _ImportFrom = _Import

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.is_computed |= node.name == "__init_subclass__"
        read = not WRAPPERS.issuperset(map(self._module.full_name, node.decorator_list))
        for part in ast.walk(node.args):
            if isinstance(part, ast.arg):
                part.annotation = part.annotation if read else None
        self._fields(node, without="" if read else "returns")

    _AsyncFunctionDef = _FunctionDef

    def _ClassDef(self, node: ast.ClassDef) -> None:
        """Annotations in a class count, because pydantic reads them.

        A settings class counts whole: a new key changes the spec anyway wherever a spec holds its block.
        """
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
            if isinstance(node, ast.Constant):  # names in quotes
                self.chains |= {(name, CALLED) for name in re.findall(r"\w+", str(node.value))}

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
        """Whether `node` is a log line and nothing in it could do more than log."""
        if not isinstance(node, ast.Call) or len(chain_of(node.func)) != 2:
            return False
        bound = self._module.bindings.get(chain_of(node.func)[0], [])
        loggers = [ast.unparse(b.value)[:18] == "logging.getLogger(" for b in bound if isinstance(b, ast.Assign)]
        acts = [part for part in ast.walk(node) if isinstance(part, ast.Call | ast.NamedExpr | ast.Yield | ast.Await)]
        return loggers == [True] * len(bound) != [] and acts == [node]


def _literal(argument: ast.expr) -> list[ast.Constant]:
    """The literal parts of an exception's argument."""
    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    return [part for part in parts if isinstance(part, ast.Constant)]


def _is_kept(node: ast.AST, error: str | None) -> bool:
    """Whether the caught `error` is used for more than another mistake's text."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and MISTAKES & {*chain_of(node.exc.func)[-1:]}:
        return False
    if isinstance(node, ast.Name):
        return node.id == error
    return any(_is_kept(child, error) for child in ast.iter_child_nodes(node))
