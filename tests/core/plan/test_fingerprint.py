import os
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline.core.errors import UserError
from plumbline.core.files import visible_files
from plumbline.core.plan.fingerprint import fingerprint


def test_fingerprint_changes_with_the_files_and_with_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "a").write_text("one")
    first = fingerprint(folder)
    assert fingerprint(folder) == first
    (folder / ".hidden").write_text("x")
    assert fingerprint(folder.rename(tmp_path / "moved")) == first
    folder = tmp_path / "moved"
    status = (folder / "cat" / "a").stat()
    os.utime(folder / "cat" / "a", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    touched = fingerprint(folder)
    (folder / "cat" / "a").rename(folder / "cat" / "b")
    renamed = fingerprint(folder)
    (folder / "cat" / "c").write_text("")
    assert len({first, touched, renamed, fingerprint(folder), fingerprint(folder / "cat" / "b")}) == 5


def test_what_a_link_leads_to_counts_and_a_link_up_the_tree_ends(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    first = fingerprint(folder)
    (folder / "dog").symlink_to(elsewhere, target_is_directory=True)
    (folder / "up").symlink_to(folder, target_is_directory=True)
    assert fingerprint(folder) == first
    (elsewhere / "a").write_text("one")
    linked = fingerprint(folder)
    (folder / "gone").symlink_to("nowhere")
    assert len({first, linked, fingerprint(folder)}) == 3


@pytest.mark.parametrize("name", ["._a", ".DS_Store", ".ipynb_checkpoints/a", "__MACOSX/a"])
def test_what_file_managers_leave_behind_is_ignored(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_text("one")
    first = fingerprint(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    assert fingerprint(tmp_path) == first
    assert visible_files(tmp_path) == [tmp_path / "a"]


def test_fingerprint_of_nothing_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        fingerprint(tmp_path / "nowhere")


def test_fingerprint_imports_what_it_needs_alone() -> None:
    script = "import sys; import plumbline.core.plan.fingerprint; assert not {'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": "workflow"})
