"""Put into a house as sitecustomize.py: every job notes which functions of plumbline call which, beside the digest.

Each function gets a first statement that notes it, added when its module is loaded; nothing here knows the digests.
"""

import ast
import builtins
import importlib.machinery
import json
import os
import sys
from pathlib import Path
from types import FrameType

noted: set[tuple[str, str]] = set()
arguments = sys.orig_argv
code = json.loads(arguments[arguments.index("--spec") + 1])["code"] if "--spec" in arguments else None


def name_of(frame: FrameType | None) -> str | None:
    """The definition that `frame` runs, "" for a module that is being imported; None outside of plumbline."""
    if frame is None:
        return ""
    spec = frame.f_globals.get("__spec__")
    if spec is None or not spec.name.startswith("plumbline."):
        return None
    top = frame.f_code.co_qualname.partition(".")[0]
    if top == "<module>":
        return "main" if frame.f_globals["__name__"] == "__main__" else ""
    return f"{spec.name.removeprefix('plumbline.')}.{top}"


def note() -> None:
    """Notes the function that calls this, and the next one of plumbline below it."""
    frame = sys._getframe(1)
    callee, caller = name_of(frame), None
    while caller is None:
        frame = frame.f_back  # type: ignore[union-attr]
        caller = name_of(frame)
    if caller and callee and (caller, callee) not in noted:
        noted.add((caller, callee))
        with Path("traced.txt").open("a") as stream:
            stream.write(f"{code} {caller} {callee}\n")


class Noting(ast.NodeTransformer):
    """Has every function note itself, behind its docstring."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        call = ast.Expr(ast.Call(ast.Name("__note__", ast.Load()), [], []))
        node.body.insert(ast.get_docstring(node) is not None, call)
        return node


def get_code(self: importlib.machinery.SourceFileLoader, fullname: str):
    if not fullname.startswith("plumbline"):
        return plain(self, fullname)
    path = self.get_filename(fullname)
    tree = ast.fix_missing_locations(Noting().visit(ast.parse(self.get_data(path))))
    return compile(tree, path, "exec", dont_inherit=True)


if code is not None and os.environ.get("PLUMBLINE_TRACED"):
    builtins.__note__ = note  # type: ignore[attr-defined]
    plain = importlib.machinery.SourceFileLoader.get_code
    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
