import os
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline.core.errors import UserError
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


def test_fingerprint_of_nothing_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        fingerprint(tmp_path / "nowhere")


def test_fingerprint_imports_what_it_needs_alone() -> None:
    script = "import sys; import plumbline.core.plan.fingerprint; assert not {'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": "workflow"})
