import ast
import importlib
import textwrap
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from core.plan.stage_digests import digests, forget
from plumbline.core.errors import UserError
from plumbline.core.plan import code, definitions

PACKAGE = Path(code.__file__).parents[2]
FILES = {
    "__init__": "",
    "top": """
        import json
        import logging
        from wall import middle
        from wall.shapes import Shape, height

        log = logging.getLogger("wall")
        WIDTH: int = 3

        def run(path: Path) -> None:
            \"\"\"Builds.\"\"\"
            log.info("building %s", path)
            print(json.dumps([WIDTH, height(), middle.depth(2), Shape.FLAT.value]))

        def unused():
            return middle.other()

        if __name__ == "__main__":
            run(1)
        """,
    "middle": """
        from .leaf import base as ground
        from . import leaf

        def depth(times):
            return ground() * times

        def other():
            return leaf.other()
        """,
    "leaf": """
        \"\"\"Leaf.\"\"\"
        FACTOR = 2

        def base():
            if FACTOR < 0:
                raise UserError(f"factor: is {FACTOR}")
            return FACTOR

        def other():
            return 1
        """,
    "shapes": """
        from enum import StrEnum
        from wall.real import height

        class Shape(StrEnum):
            FLAT = "flat"
            ROUND = "round"
        """,
    "real": "def height():\n    return 4\n",
    "apart": "x = 1\n",
}


class Wall:
    """A package whose module `top` is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "wall"
        self.folder.mkdir()
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(textwrap.dedent(text))

    def edit(self, module: str, old: str, new: str) -> None:
        text = (self.folder / f"{module}.py").read_text()
        assert old in text
        (self.folder / f"{module}.py").write_text(text.replace(old, new))

    def changed(self, *edits: tuple[str, str, str]) -> set[str]:
        """The definitions that `edits` change, add or remove."""
        before = digests("wall.top")
        for edit in edits:
            self.edit(*edit)
        after = digests("wall.top")
        return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.fixture
def wall(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Wall(tmp_path)
    forget()


def test_the_closure_is_what_the_stage_reaches_by_name_and_nothing_beside_it(wall):
    assert set(digests("wall.top")) == {
        "wall.top when run", "wall.top.run", "wall.top.json", "wall.top.middle", "wall.top.height", "wall.top.Shape",
        "wall.top.WIDTH", "wall.middle.depth", "wall.middle.ground", "wall.leaf.base", "wall.leaf.FACTOR",
        "wall.shapes.height", "wall.real.height", "wall.shapes.Shape", "wall.shapes.Shape.FLAT", "wall.shapes.StrEnum",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("leaf", "FACTOR = 2", "FACTOR = 3", {"wall.leaf.FACTOR"}),
        ("leaf", "FACTOR < 0", "FACTOR <= 0", {"wall.leaf.base"}),
        ("real", "return 4", "return 5", {"wall.real.height"}),
        ("top", "WIDTH: int = 3", "WIDTH: int = 4", {"wall.top.WIDTH"}),
        ("top", "run(1)", "run(2)", {"wall.top when run"}),
        ("shapes", '"flat"', '"even"', {"wall.shapes.Shape.FLAT"}),
        ("top", "import json", "import simplejson as json", {"wall.top.json"}),
        ("middle", "base as ground", "other as ground", {"wall.middle.ground", "wall.leaf.other"}),
    ],
)
def test_an_edit_changes_the_definition_that_it_is_in(wall, module, old, new, changed):
    found = wall.changed((module, old, new))
    assert changed <= found <= {*changed, "wall.leaf.base", "wall.leaf.FACTOR"}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("leaf", '"""Leaf."""', '"""Other words."""\n# a comment'),
        ("top", '"""Builds."""', '"""Constructs."""'),
        ("top", "path: Path", "path: str"),
        ("top", '"building %s", path', '"now building"'),
        ("top", 'log.info("building %s", path)', 'log.debug("about to build")'),
        ("top", "middle.other()", "middle.other() + 1"),
        ("shapes", 'ROUND = "round"', 'ROUND = "circular"\n    OVAL = "oval"'),
        ("apart", "x = 1", "x = 2"),
        ("leaf", "return 1", "return 2"),
    ],
)
def test_what_the_stage_does_not_use_does_not_count(wall, module, old, new):
    assert wall.changed((module, old, new)) == set()


def test_a_function_that_is_called_anew_brings_what_it_reaches(wall):
    assert wall.changed(("top", "middle.depth(2)", "middle.other()")) >= {
        "wall.top.run", "wall.middle.other", "wall.leaf.other",
    }  # fmt: skip


@pytest.mark.parametrize(
    "use", ["getattr(middle, 'oth' + 'er')", "vars(middle)", "list(map(str, [middle]))", "middle.nowhere"]
)
def test_a_module_used_in_any_other_way_than_by_a_name_in_it_counts_whole(wall, use):
    wall.edit("top", "middle.depth(2)", use)
    assert {"wall.middle.depth", "wall.middle.other", "wall.leaf.other"} <= set(digests("wall.top"))


@pytest.mark.parametrize("use", ["Shape(1)", "list(Shape)", "Shape.__members__", "len(Shape)"])
def test_members_of_an_enum_count_unless_it_is_only_called(wall, use):
    wall.edit("top", "Shape.FLAT.value", use)
    members = {name.removeprefix("wall.shapes.Shape.") for name in digests("wall.top") if "shapes.Shape." in name}
    assert members == (set() if use == "Shape(1)" else {"FLAT", "ROUND", "*"})


def test_the_order_of_an_enums_members_counts_where_all_of_them_are_used(wall):
    members = ['FLAT = "flat"', 'ROUND = "round"']
    swap = ("shapes", "\n    ".join(members), "\n    ".join(reversed(members)))
    assert wall.changed(swap) == set()
    wall.write("shapes", FILES["shapes"])
    wall.edit("top", "Shape.FLAT.value", "list(Shape)")
    assert wall.changed(swap) == {"wall.shapes.Shape.*"}


@pytest.mark.parametrize(
    "use",
    [
        "globals()['unused']()",
        "eval('unused()')",
        "Shape.__subclasses__()",
        "run.__globals__['unused']()",
        "import sys; vars(sys.modules[__name__])['unused']()",
        "import sys as s; s.modules[__name__].unused()",
        "from sys import modules; modules[__name__].unused()",
        "from importlib import import_module as load; load(__name__).unused()",
        "import builtins; builtins.eval('unused()')",
    ],
)
def test_names_that_are_computed_make_all_that_the_stage_imports_count(wall, use):
    *imports, expression = use.split("; ")
    wall.edit("top", "import json", "\n".join([*imports, "import json"]))
    wall.edit("top", "middle.depth(2)", expression)
    assert {"wall.top.unused", "wall.middle.other", "wall.leaf.other"} <= set(digests("wall.top"))


def test_names_that_are_computed_from_an_import_inside_a_function_count_too(wall):
    wall.edit(
        "top", "print(json", "from importlib import import_module as load\n    print(load(__name__).unused(), json"
    )
    assert "wall.top.unused" in digests("wall.top")


def test_the_order_in_which_a_name_is_bound_again_counts(wall):
    wall.edit("leaf", "FACTOR = 2", "A = 1\nFACTOR = A\nA = 2")
    assert "wall.leaf.A" in wall.changed(("leaf", "FACTOR = A\nA = 2", "A = 2\nFACTOR = A"))


def test_the_order_of_effects_and_of_what_is_computed_beside_them_counts(wall):
    wall.edit("leaf", "FACTOR = 2", "T = {}\nFACTOR = dict(T)\nT.update(a=1)")
    edit = ("leaf", "FACTOR = dict(T)\nT.update(a=1)", "T.update(a=1)\nFACTOR = dict(T)")
    assert wall.changed(edit) == {"wall.leaf when imported"}


def test_a_star_import_makes_its_module_count(wall):
    wall.edit("top", "from wall import middle", "from wall.leaf import *\nfrom wall import middle")
    wall.edit("top", "middle.depth(2)", "base()")
    assert {"wall.leaf.base", "wall.leaf.other"} <= set(digests("wall.top"))


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE['a'] = other()",
        "@register\ndef extra():\n    return other()",
        "for _ in range(2):\n    other()",
        "if FACTOR:\n    other()",
        "TABLE.update(a=other())",
        "class Extra(metaclass=other):\n    pass",
        "kept = other()",
        "register.calls, kept = 1, 2\nregister(other)",
        "class Extra:\n    for _ in range(2):\n        other()",
        "class Extra:\n    kept = other()",
        "class Extra:\n    kept: int = other()",
        "class Extra:\n    @register\n    def kept(self): return other()",
        "class Extra:\n    class Inner:\n        kept = other()",
        "def extra(kept=register(1)): return other()",
        "def extra(*, kept=register(other)): pass",
        "class Extra:\n    def __init__(self): other()\nkept = Extra()",
        "class Extra:\n    def kept(self, given=other()): pass",
        "kept = [register(one) for one in [other]]",
        "from wall import middle as m\nalias = m.leaf\nkept = alias.setdefault(1, other)",
        "import numpy as np\n_OLD = np.seterr(all=other)",
    ],
)
def test_statements_that_do_something_when_a_module_is_imported_count_with_what_they_reach(wall, statement):
    text = (wall.folder / "leaf.py").read_text()
    wall.write("leaf", f"{text}\nTABLE = {{}}\ndef register(one): TABLE['one'] = one\n{statement}\n")
    assert {"wall.leaf when imported", "wall.leaf.other"} <= set(digests("wall.top"))


@pytest.mark.parametrize(
    "base",
    [
        "class Meta(type):\n    def __new__(*args): HOOKS.append(args)\nclass Base(metaclass=Meta): pass",
        "class Base:\n    def __init_subclass__(cls): HOOKS.append(cls)",
        "from elsewhere import Base",
    ],
)
def test_a_subclass_that_its_base_class_may_register_counts(wall, base):
    wall.edit("real", "def height():\n    return 4", f"HOOKS = []\n{base}\ndef height():\n    return HOOKS")
    wall.edit("apart", "x = 1", "from wall.real import Base\nclass Extra(Base):\n    size = 1")
    wall.edit("top", "import json", "import json\nimport wall.apart")
    if base.startswith("from"):
        wall.edit("apart", "from wall.real", "from elsewhere")
    assert wall.changed(("apart", "size = 1", "size = 2"))


@pytest.mark.parametrize(
    "statement",
    [
        "import logging\nlog = logging.getLogger('wall')",
        "from pathlib import Path\nPLACE = Path('a')",
        "import re\nPATTERN = re.compile('a')",
        "from dataclasses import dataclass, field\n"
        "@dataclass\nclass Extra:\n    kept: list = field(default_factory=list)",
        "from plumbline.core.settings import Settings\nclass Base(Settings): x: int = 1\n"
        "class Extra(Base):\n    kept: Base = Base()",
    ],
)
def test_statements_that_only_build_a_value_are_no_effects(wall, statement):
    wall.write("real", f"{FILES['real']}\n{statement}\n")
    assert "wall.real when imported" not in digests("wall.top")


@pytest.mark.parametrize("after", ["intel_extension", "torch._dynamo", "numpy as unread"])
def test_an_import_of_another_package_for_what_it_does_counts(wall, after):
    text = f"import numpy\nimport torch\n{FILES['real']}    torch, numpy\n"
    wall.write("real", text)
    assert wall.changed(("real", "import torch", f"import torch\nimport {after}")) == {"wall.real when imported"}


def test_a_module_imported_for_its_effects_alone_counts(wall):
    wall.edit("top", "import json", "import json\nimport wall.apart")
    assert wall.changed(("apart", "x = 1", "x = 1\nprint(x)")) == {"wall.apart when imported", "wall.apart.x"}


def test_module_that_its_package_imports_counts(wall):
    wall.write("__init__", "from wall import leaf\nfrom . import shapes\n")
    wall.write("top", "import wall\n\nprint(wall.leaf.base(), wall.shapes.height())\n")
    assert "wall.leaf.base" in wall.changed(("leaf", "def base", "def base_"))
    assert "wall.shapes.height" in digests("wall.top")


def test_what_a_package_does_when_imported_counts(wall):
    assert wall.changed() == set()
    wall.write("__init__", "import os\nos.environ['A'] = 'b'\n")
    assert "wall when imported" in digests("wall.top")


def test_a_package_without_an_init_file_is_followed_as_any_other(wall):
    with_init = digests("wall.top")
    (wall.folder / "__init__.py").unlink()
    assert digests("wall.top") == {name: digest for name, digest in with_init.items() if name != "wall when imported"}
    assert "wall.leaf.base" in wall.changed(
        ("leaf", "def base", "def base_"), ("middle", "import base", "import base_")
    )
    wall.edit("top", "import json", "import json\nimport wall.apart")
    wall.edit("top", "print(json", "print(wall.apart.x, json")
    assert "wall.apart.x" in wall.changed(("apart", "x = 1", "x = 2"))


def test_imports_inside_functions_are_followed(wall):
    wall.edit(
        "top", "print(json", "from wall.leaf import other as o\n    from wall import apart\n    print(o, apart.x, json"
    )
    assert {"wall.leaf.other", "wall.apart.x"} <= set(digests("wall.top"))


def test_a_module_imported_inside_a_function_for_its_effects_counts(wall):
    wall.edit("top", "    print(json", "    import wall.apart\n    print(json")
    assert "wall.apart when imported" in wall.changed(("apart", "x = 1", "x = 1\nprint(x)"))


def test_decorators_defaults_and_base_classes_are_followed(wall):
    wall.edit("top", "def run(path: Path)", "def run(path: Path, more=middle.other)")
    assert "wall.leaf.other" in digests("wall.top")


@pytest.mark.parametrize("annotation", ["Kind", "list[Kind] | None", "'Kind | None'"])
def test_annotations_in_classes_are_followed_for_pydantic_reads_them(wall, annotation):
    wall.edit("top", "WIDTH: int = 3", f"class Kind: pass\nclass Unit:\n    kind: {annotation}\nWIDTH = Unit")
    assert "wall.top.Kind" in digests("wall.top")


WORDING = ("leaf", "factor: is", "the factor is")


@pytest.mark.parametrize(
    "handler",
    [
        "except UserError as error:\n        print(str(error))",
        "except errors.UserError as error:\n        print(str(error))",
        "except CAUGHT as error:\n        print(str(error))",
        "except (OSError, CAUGHT) as error:\n        print(str(error))",
        "except (OSError, Exception) as error:\n        raise OutcomeError(str(error))",
        "except UserError:\n        print(traceback.format_exc())",
        "except UserError:\n        print(sys.exc_info())",
        "except UserError:\n        print(caught())",
        "finally:\n        print(future.exception())",
        "except OutcomeError as error:\n        print(error.__context__)",
    ],
)
def test_wording_of_a_mistake_counts_where_something_can_catch_and_keep_it(wall, handler):
    assert wall.changed(WORDING) == set()
    wall.edit("top", "import json", "import json, sys, traceback\nfrom sys import exc_info as caught")
    wall.edit("top", "    print(json", f"    try:\n        pass\n    {handler}\n    print(json")
    assert wall.changed(("leaf", "the factor is", "a factor is")) == {"wall.leaf.base"}


@pytest.mark.parametrize(
    "handler",
    [
        "except (OSError, KeyError) as error:\n        print(str(error))",
        "except UserError as error:\n        raise UserError(f'there: {error}') from None",
        "except BaseException as error:\n        raise error",
        "except UserError:\n        print(0)",
    ],
)
def test_wording_of_a_mistake_does_not_count_where_nothing_keeps_it(wall, handler):
    wall.edit("top", "    print(json", f"    try:\n        pass\n    {handler}\n    print(json")
    assert wall.changed(WORDING) == set()


@pytest.mark.parametrize(("use", "is_kept"), [("print(error)", True), ("print(error is None)", False)])
def test_wording_of_a_mistake_counts_where_a_context_manager_keeps_it(wall, use, is_kept):
    method = f"    def __exit__(self, kind, error, trace):\n        {use}"
    wall.edit("top", "WIDTH: int = 3", f"class Block:\n{method}\nWIDTH = Block")
    assert wall.changed(WORDING) == ({"wall.leaf.base"} if is_kept else set())


def test_exceptions_that_are_said_to_be_no_mistakes_are_none():
    """By their names, which in the package are bound by their own class or import alone."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name in definitions.UNRELATED:
                module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
                found[node.name] = getattr(importlib.import_module(module), node.name)
            assert getattr(node, "asname", None) not in definitions.UNRELATED
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            assert not (stored and node.id in definitions.UNRELATED)
    found |= {"OutOfMemoryError": torch.OutOfMemoryError, "ArrowException": pa.ArrowException}
    assert found.keys() == definitions.UNRELATED
    for kind in found.values():
        assert not issubclass(UserError, kind)
        assert not issubclass(ValueError, kind)


def test_what_is_put_into_the_text_of_a_mistake_counts(wall):
    assert wall.changed(("leaf", "{FACTOR}", "{FACTOR + 1}")) == {"wall.leaf.base"}


def test_modules_that_a_target_names_count_whole(wall):
    assert "wall.apart.x" in digests("wall.top", "wall.apart")


def test_a_module_that_does_nothing_when_run_counts_whole(wall):
    assert {"wall.leaf.base", "wall.leaf.other", "wall.leaf.FACTOR"} <= set(digests("wall.leaf"))


def test_missing_module_is_named():
    with pytest.raises(UserError, match="nowhere_to_be_found"):
        code.code_of("nowhere_to_be_found")


def test_syntax_error_is_named_with_its_line(wall):
    wall.write("leaf", "def height(:\n")
    with pytest.raises(UserError, match=r"leaf\.py:1"):
        digests("wall.top")


def test_only_registries_import_by_a_computed_name_and_nobody_reads_validation_errors_but_the_check():
    """The closure ends at importlib; a target names what its registry loads. Its texts end at UserError."""
    importing, catching = set(), set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            above_the_studies = path.parent in (PACKAGE, PACKAGE / "commands")  # no stage imports them
            if isinstance(node, ast.Attribute) and node.attr == "import_module" and not above_the_studies:
                importing.add(path.parent.name)
            if isinstance(node, ast.ExceptHandler) and node.type and "ValidationError" in ast.unparse(node.type):
                catching.add(path.relative_to(PACKAGE).as_posix())
    assert importing <= {"core", "corpora", "causes", "methods", "run"}  # run: a batch starts stages, none reaches it
    assert catching <= {"core/settings.py"}
