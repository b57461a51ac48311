from pathlib import Path

import pytest

from plumbline.core.errors import UserError
from plumbline.core.plan.globs import matching


def test_what_git_left_in_place_of_a_text_is_named_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    assert matching([f"{tmp_path}/a*"], "corpus.files") == [tmp_path / "a.txt"]
    with pytest.raises(UserError, match=r"b\.txt: is a Git LFS pointer, not the text; run `git lfs pull`"):
        matching([f"{tmp_path}/*.txt"], "corpus.files")
