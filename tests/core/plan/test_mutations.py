"""Every change of a definition that a stage reaches changes the stage's digest: tried on a copy of the package."""

import ast
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import plumbline
from core.plan.stage_digests import Root, read_from, roots
from plumbline.core.plan import code, modules


def units(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """The functions, methods and constants of a module, each with the name of the definition that it is in."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.Assign | ast.AnnAssign):
                    is_member = isinstance(part, ast.Assign) and "StrEnum" in map(ast.unparse, node.bases)
                    yield f"{node.name}.{ast.unparse(part.targets[0])}" if is_member else node.name, part
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            for name in ast.walk(target):
                if isinstance(name, ast.Name):
                    yield name.id, node


def results(node: ast.AST) -> Iterator[ast.AST]:
    """What in `node` may decide a result: not its docstrings, annotations, log lines and wordings."""
    yield node
    for field, value in ast.iter_fields(node):
        wording = isinstance(node, ast.Raise | ast.JoinedStr) or field in ("annotation", "returns")
        for child in value if isinstance(value, list) else [value]:
            is_text = isinstance(child, ast.Expr) and ast.unparse(child).startswith(("'", '"', "log.", "r'", "f'"))
            if isinstance(child, ast.AST) and not isinstance(child, ast.pattern) and not wording and not is_text:
                yield from results(child)


def edits(unit: ast.stmt, text: bytes, place: dict[int, int]) -> Iterator[bytes]:
    """`text` with a number bumped, a comparison turned round, a returned value wrapped, or the like, one at a time."""

    def replaced(node: ast.AST, new: str) -> bytes:
        begin, end = (place[node.lineno] + node.col_offset, place[node.end_lineno] + node.end_col_offset)  # type: ignore[attr-defined]
        return text[:begin] + new.replace("@", text[begin:end].decode()).encode() + text[end:]

    kinds: dict[str, bytes] = {}
    for node in results(unit):
        if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value < 1e300:
            kinds.setdefault("number", replaced(node, repr(node.value + 1)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | str):
            kinds.setdefault("constant", replaced(node, "(not @)" if isinstance(node.value, bool) else "(@ + 'x')"))
        elif isinstance(node, ast.Compare | ast.BoolOp):
            kinds.setdefault("condition", replaced(node, "(not (@))"))
        elif isinstance(node, ast.BinOp | ast.UnaryOp):
            kinds.setdefault("operation", replaced(node, "(-(@))"))
        elif isinstance(node, ast.Return) and node.value is not None:
            kinds.setdefault("result", replaced(node.value, "(@, 0)"))
        elif isinstance(node, ast.Call):
            kinds.setdefault("call", replaced(node, "[@]"))
    if not kinds and isinstance(unit, ast.FunctionDef):
        kinds["body"] = replaced(unit.body[0], "@; another = 1")
    elif isinstance(unit, ast.Assign | ast.AnnAssign) and unit.value is not None:
        kinds["value"] = replaced(unit.value, "(@, 0)")
    elif isinstance(unit, ast.AnnAssign):
        kinds["annotation"] = replaced(unit.annotation, "(@, 0)")
    yield from kinds.values()


class Reader:
    """Digests of a copy of the package, read again after one of its modules was edited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: dict[tuple[str, str], Any] = {}
        self.modules: dict[str, modules.Module] = {}
        self.digest: dict[tuple[str, str, bool], str] = {}
        self.read_once, self.digest_once = code._read.__wrapped__, code._digest.__wrapped__
        monkeypatch.setattr(code, "_read", self._read)
        for user in (code, modules):
            monkeypatch.setattr(user, "parsed", self._module)
        monkeypatch.setattr(code, "_digest", self._digest)

    def _read(self, module: str, name: str) -> Any:
        if (module, name) not in self.read:
            self.read[module, name] = self.read_once(module, name)
        return self.read[module, name]

    def _digest(self, module: str, name: str, *, with_texts: bool) -> str:
        if (module, name, with_texts) not in self.digest:
            self.digest[module, name, with_texts] = self.digest_once(module, name, with_texts=with_texts)
        return self.digest[module, name, with_texts]

    def _module(self, name: str) -> modules.Module:
        if name not in self.modules:
            self.modules[name] = modules.Module(name)
        return self.modules[name]

    def forget(self, module: str) -> None:
        self.modules.pop(module, None)
        for known in (self.read, self.digest):
            for node in [node for node in known if node[0] == module]:
                del known[node]

    def digests(self, root: Root) -> dict[str, str]:
        return code.code_of.__wrapped__(*root)


def lines_of(text: bytes) -> dict[int, int]:
    """Line number -> its first byte."""
    lengths = [0, *(len(line) + 1 for line in text.split(b"\n"))]
    return dict(enumerate(itertools.accumulate(lengths), 1))


def test_every_change_of_a_function_or_constant_that_a_stage_reaches_changes_its_digest(tmp_path, monkeypatch):
    package = tmp_path / "plumbline"
    shutil.copytree(Path(plumbline.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    tried, unnoticed = 0, []
    with read_from(package):
        reader = Reader(monkeypatch)
        before = {root: reader.digests(root) for root in roots()}
        for path in sorted(package.rglob("*.py")):
            text = path.read_bytes()
            module = ".".join(path.relative_to(tmp_path).with_suffix("").parts).removesuffix(".__init__")
            for number, (name, unit) in enumerate(units(ast.parse(text))):
                shown = f"{module}.{name}".removeprefix("plumbline.")
                reaching = {root[0].split(".")[1]: root for root, found in before.items() if shown in found}
                changed = list(edits(unit, text, lines_of(text))) if reaching else []
                for kind, edited in enumerate(changed):  # each root gets one of them, in turn
                    tried_on = list(reaching.values())[(kind - number) % len(changed) :: len(changed)]
                    if not tried_on:
                        continue
                    path.write_bytes(edited)
                    reader.forget(module)
                    after = {root: reader.digests(root) for root in tried_on}
                    unnoticed += [(root[0], shown) for root in after if after[root].get(shown) == before[root][shown]]
                    tried += 1
            path.write_bytes(text)
            reader.forget(module)
    assert unnoticed == []
    assert tried > 1500
