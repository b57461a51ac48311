"""What a definition says and which names it reaches.

Left out: docstrings, comments, log lines, annotations of functions. The text of a user's mistake is kept apart.
"""

import ast
import builtins
import re
from collections.abc import Container, Sequence
from typing import Any

from plumbline.core.plan.modules import OURS, WRAPPERS, Import, Module, chain_of, is_inert

COMPUTED = re.compile(
    r"(builtins\.)?(__import__|globals|locals|eval|exec)|(builtins|pkgutil|runpy)(\..*)?|sys\.modules(\..*)?"
    r"|importlib\.(import_module|reload|__import__)|(.*\.)?(import_module|__subclasses__|__globals__)(\..*)?"
)
"""Names by which code can reach definitions that it does not name."""
MISTAKES = {"UserError", "ValueError"}
"""Exceptions whose text reaches no output, unless something catches them and keeps it."""
UNRELATED = {"OutcomeError", "TimeUpError", "NotFiniteError", "OutOfMemoryError", "ArrowException"}
"""Exceptions beside the built-in ones that are no base class of these: what catches them catches no mistake."""
CATCHING = re.compile(
    r"traceback\..*|sys\.(exc|last_|unraisable).*|(.*\.)?(exception|__context__|__cause__|excepthook)"
)
"""Names by which code can get at an exception that it did not catch under a name."""
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
        """Names that it reads, each with the attributes read from it: ("np", "linalg", "norm")."""
        self.imports: dict[str, list[Import]] = {}
        """What is imported inside functions, by name."""
        self._module = module
        self._texts: set[ast.AST] = set()
        for node in statements:
            self._visit(node)
            if isinstance(node, Import):
                self._notice(".".join(filter(None, node)))

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
            self.chains.add((*chain, *end))
        else:
            self._fields(node)
        name = self._module.full_name(node, self.imports) or ".".join(chain) or f"?.{getattr(node, 'attr', '')}"
        if chain != ["importlib", "import_module"] or not self._module.name.startswith(f"{OURS}."):
            self._notice(name)  # a registry of ours: a target names the modules that it loads

    def _notice(self, name: str) -> None:
        self.is_computed |= COMPUTED.fullmatch(name) is not None
        self.keeps_texts |= CATCHING.fullmatch(name) is not None

    _Attribute = _Name

    def _Expr(self, node: ast.Expr | ast.If) -> None:
        if not is_inert(node) and not (isinstance(node, ast.Expr) and self._only_logs(node.value)):
            self._fields(node)

    _If = _Expr

    def _Call(self, node: ast.Call) -> None:
        self.said.append("Call")
        self.is_computed |= chain_of(node.func) == ["vars"] and not node.args
        self._Name(node.func, CALLED) if chain_of(node.func) else self._visit(node.func)
        self._visit([node.args, node.keywords])

    def _Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.said.append(ast.dump(node))
        for name, target in self._module.targets(node):
            self.imports.setdefault(name, []).append(target)
            self._notice(".".join(filter(None, target)))
        if isinstance(node, ast.Import):
            self.imports.setdefault("", []).extend(Import(alias.name) for alias in node.names)

    _ImportFrom = _Import

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.name in ("__exit__", "__aexit__"):
            given = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)} - {"self"}
            self.keeps_texts |= any(_is_kept(part, given) for part in node.body)
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
        self.is_computed |= self._module.registers(node)
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
        if isinstance(node.exc, ast.Call) and _is_mistake(node.exc):
            self._texts.update(part for one in node.exc.args for part in getattr(one, "values", [one]))
        self._fields(node)

    def _Constant(self, node: ast.Constant) -> None:
        (self.texts if node in self._texts else self.said).append(repr(node.value))

    def _ExceptHandler(self, node: ast.ExceptHandler) -> None:
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if not all(map(self._is_unrelated, kinds)):
            self.keeps_texts |= any(_is_kept(part, {node.name}) for part in node.body)
        self._fields(node)

    def _is_unrelated(self, kind: ast.AST | None) -> bool:
        """Whether what `kind` catches is certainly no mistake."""
        name = ".".join(chain_of(kind)) if kind else ""
        found = None if name in self._module.bindings else getattr(builtins, name, None)
        known = isinstance(found, type) and not issubclass(ValueError, found)
        return known or name.rpartition(".")[2] in UNRELATED

    def _only_logs(self, node: ast.AST) -> bool:
        """Whether `node` is a log line and nothing in it could do more than log."""
        if not isinstance(node, ast.Call) or len(chain_of(node.func)) != 2:
            return False
        bound = self._module.bindings.get(chain_of(node.func)[0], [])
        loggers = [ast.unparse(b.value)[:18] == "logging.getLogger(" for b in bound if isinstance(b, ast.Assign)]
        acts = [part for part in ast.walk(node) if isinstance(part, ast.Call | ast.NamedExpr | ast.Yield | ast.Await)]
        return loggers == [True] * len(bound) != [] and acts == [node]


def _is_mistake(raised: ast.AST | None) -> bool:
    return isinstance(raised, ast.Call) and not MISTAKES.isdisjoint(chain_of(raised.func)[-1:])


def _is_kept(node: ast.AST, errors: Container[str | None]) -> bool:
    """Whether one of the variables `errors` is used for more than to raise another mistake, or the same."""
    raised = node.exc if isinstance(node, ast.Raise) else None
    is_raised = isinstance(raised, ast.Name) or _is_mistake(raised)
    is_compared = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot)
    if is_raised or is_compared or (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "__exit__"):
        return False
    if isinstance(node, ast.Name):
        return node.id in errors
    return any(_is_kept(child, errors) for child in ast.iter_child_nodes(node))
