import ast
from pathlib import Path

import pytest

from plumbline.core.errors import UserError
from plumbline.core.plan import code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `wall`: `top` imports `middle`, which imports `leaf` relatively; `apart` is imported by none."""
    folder = tmp_path / "wall"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "top.py").write_text("import json\nfrom wall import middle\n")
    (folder / "middle.py").write_text("from .leaf import height\n")
    (folder / "leaf.py").write_text('"""Leaf."""\n\ndef height():\n    """Height."""\n    return 1\n')
    (folder / "apart.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def read():
        code._read.cache_clear()
        code._source.cache_clear()
        return code.code_of(["wall.top"])

    return folder, read


def test_closure_holds_all_that_is_imported_inside_the_package(package):
    _, read = package
    assert list(read()) == ["wall", "wall.leaf", "wall.middle", "wall.top"]


def test_edit_of_a_distant_module_changes_its_digest_alone(package):
    folder, read = package
    before = read()
    (folder / "leaf.py").write_text("def height():\n    return 2\n")
    after = read()
    assert {name for name in before if before[name] != after[name]} == {"wall.leaf"}


def test_comments_formatting_and_docstrings_do_not_count(package):
    folder, read = package
    before = read()
    (folder / "leaf.py").write_text('"""Other words."""\n# a comment\ndef height( ) :\n\n    return (1)\n')
    assert read() == before


def test_a_module_that_is_not_reached_does_not_count(package):
    folder, read = package
    before = read()
    (folder / "apart.py").write_text("x = 2\n")
    assert read() == before


def test_missing_module_is_named():
    with pytest.raises(UserError, match="nowhere_to_be_found"):
        code.code_of(["nowhere_to_be_found"])


def test_syntax_error_is_named_with_its_line(package):
    folder, read = package
    (folder / "leaf.py").write_text("def height(:\n")
    with pytest.raises(UserError, match=r"leaf\.py:1"):
        read()


def test_every_import_of_every_plumbline_module_is_in_its_closure():
    """Against a second, independent reading: the modules that really get imported."""
    import subprocess
    import sys

    program = "import sys, plumbline.ablation.features; print(*[m for m in sys.modules if m.startswith('plumbline')])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(answer.stdout.split()) <= set(code.code_of(["plumbline.ablation.features"]))


def test_no_module_imports_inside_a_string_or_by_computed_name_unnoticed():
    """The static closure ends at importlib calls: only registries, whose modules a target names, use them."""
    package = Path(code.__file__).parents[1]
    users = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "import_module":
                users.add(path.parent.name)
    assert users <= {"core", "corpora", "causes"}
