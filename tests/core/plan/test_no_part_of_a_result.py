"""What the digests leave out is used in no way that could reach a result."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.plan.stage_digests import forget, roots
from plumbline.core.plan import code

PACKAGE = Path(code.__file__).parents[2]


def uses(name: str) -> Iterator[tuple[str, list[ast.AST]]]:
    """Every use of `name` in the package: its module, and the nodes from it outwards."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        pending: list[tuple[ast.AST, list[ast.AST]]] = [(ast.parse(path.read_text()), [])]
        while pending:
            node, around = pending.pop()
            if getattr(node, "id", getattr(node, "attr", None)) == name and not isinstance(node, ast.arg):
                yield module, [node, *around]
            pending += [(child, [node, *around]) for child in ast.iter_child_nodes(node)]


def opens_a_block(around: list[ast.AST]) -> bool:
    """Whether it is called to open a `with` block, now or, in the store of adapters, later."""
    if any(isinstance(node, ast.Assign) and "self._whole" in ast.unparse(node) for node in around):
        return True
    return isinstance(around[1], ast.Call) and any(isinstance(node, ast.withitem) for node in around[2:4])


def test_every_name_that_is_left_out_would_count_otherwise(monkeypatch):
    left_out = code.NO_PART_OF_A_RESULT
    monkeypatch.setattr(code, "NO_PART_OF_A_RESULT", frozenset())
    forget()
    found = {f"plumbline.{name}" for root in roots() for name in code.code_of(*root)}
    forget()
    assert left_out <= found


def test_the_list_is_the_one_that_is_checked_here():
    names = {"stage", "atomic", "PACKAGES", "Progress", "log_event", "_explain"}
    assert {name.rpartition(".")[2] for name in code.NO_PART_OF_A_RESULT} == names


@pytest.mark.parametrize("name", ["atomic", "Progress"])
def test_these_only_open_blocks(name):
    found = [
        (module, around) for module, around in uses(name) if not any(isinstance(node, ast.arg) for node in around[1:3])
    ]
    assert len(found) > 10
    assert [module for module, around in found if not opens_a_block(around)] == []


def test_progress_gives_nothing_back():
    methods = ("advance", "report")
    found = [around for name in methods for module, around in uses(name) if module != "core.run.progress"]
    assert found
    assert all(isinstance(around[2], ast.Expr | ast.Lambda) for around in found)


def test_lines_of_the_journal_give_nothing_back():
    found = [around for _, around in uses("log_event")]
    assert found
    assert all(isinstance(around[2], ast.Expr) for around in found)


def test_only_the_diagnosis_reads_journals_in_a_stage():
    reading = [root[0] for root in roots() if "core.run.progress.read_journal" in code.code_of(*root)]
    readers = {stage.removeprefix("plumbline.") for stage in reading}
    assert readers == {"lr_sweep.diagnose"}


def test_packages_are_only_listed_with_their_versions():
    found = [
        (module, ast.unparse(around[2])) for module, around in uses("PACKAGES") if not isinstance(around[1], ast.Assign)
    ]
    assert found == [("core.measure.machine", "{name: _version(name) for name in PACKAGES}")]


def test_mistakes_are_worded_for_errors_alone():
    found = [(module, around) for module, around in uses("_explain")]
    assert [module for module, _ in found] == ["core.settings"]
    assert any(isinstance(node, ast.ExceptHandler) for node in found[0][1])
