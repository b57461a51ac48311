"""Kept digests are those of the sources as they are, and save reading them."""

import json
import shutil

import pytest

from core.plan.stage_digests import forget, read_from
from house import HALF_WRITTEN, PROJECT
from plumbline.core.plan import code, kept_code
from plumbline.core.plan.kept_code import keep_code_of, kept_code_of

ROOT = ("plumbline.lr_sweep.corpus",)


@pytest.fixture
def package(tmp_path):
    """A copy of the package whose digests for one stage are kept."""
    package = tmp_path / "plumbline"
    shutil.copytree(PROJECT / "workflow" / "plumbline", package, ignore=HALF_WRITTEN)
    (package / "__pycache__" / "code.json").unlink(missing_ok=True)
    with read_from(package):
        keep_code_of([ROOT])
        yield package


def kept(package):
    return json.loads((package / "__pycache__" / "code.json").read_text())["found"]


def test_what_is_kept_is_what_is_found_and_nothing_is_read_again(package, monkeypatch):
    found = code.code_of(*ROOT)
    assert kept(package) == {ROOT[0]: found}
    forget()
    monkeypatch.setattr(kept_code, "code_of", None)
    assert kept_code_of(*ROOT) == found


def test_an_edit_is_noticed_although_the_digests_before_it_are_kept(package):
    path, before = package / "core" / "text" / "documents.py", kept(package)[ROOT[0]]
    name = next(name for name in before if name.startswith("core.text.documents.") and name.count(".") == 3)
    definition = name.rpartition(".")[2]
    path.write_text(path.read_text() + f"\n\n{definition} = 1\n")
    forget()
    assert kept_code_of(*ROOT)[name] != before[name]
    keep_code_of([ROOT])
    assert kept(package)[ROOT[0]] == kept_code_of(*ROOT) != before


def test_nothing_is_kept_of_sources_that_are_edited_meanwhile(package):
    path, before = package / "core" / "errors.py", kept(package)
    path.write_text(path.read_text() + "\nFIRST = 1\n")
    forget()
    assert kept_code_of(*ROOT)
    path.write_text(path.read_text() + "\nSECOND = 2\n")
    keep_code_of([ROOT])
    assert kept(package) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sources": "0"}'])
def test_a_file_that_is_torn_or_of_other_sources_is_ignored(package, text):
    found = kept(package)[ROOT[0]]
    (package / "__pycache__" / "code.json").write_text(text)
    forget()
    assert kept_code_of(*ROOT) == found


def test_of_a_users_own_module_nothing_is_kept(package, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    keep_code_of([(*ROOT, "mine")])
    assert "mine.VALUE" in kept_code_of(*ROOT, "mine")
    assert set(kept(package)) == {ROOT[0]}


def test_nothing_is_kept_where_python_keeps_no_bytecode(package, monkeypatch):
    (package / "__pycache__" / "code.json").unlink()
    forget()
    monkeypatch.setattr(kept_code.sys, "dont_write_bytecode", True)
    keep_code_of([ROOT])
    assert not (package / "__pycache__" / "code.json").exists()


def test_locks_of_editors_are_no_sources(package):
    before = kept_code._sources_now()
    (package / "core" / ".#errors.py").symlink_to("someone@somewhere.1234")
    assert kept_code._sources_now() == before


def test_where_a_source_cannot_be_read_nothing_is_kept_or_taken(package, monkeypatch):
    before, found = kept(package), code.code_of(*ROOT)
    (package / "core" / "going.py").symlink_to("gone.py")
    forget()
    assert kept_code_of(*ROOT) == found
    keep_code_of([ROOT])
    assert kept(package) == before
    assert kept_code._kept() == {}
