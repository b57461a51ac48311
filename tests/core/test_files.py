import errno
import os
import subprocess
import sys

import pytest

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, read_json, write_json, write_text


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "deep" / "record.json"
    with atomic(path) as partial:
        partial.write_text("1")
        assert not path.exists()
    assert path.read_text() == "1"
    assert names(path.parent) == ["record.json"]


def test_error_leaves_the_old_file_and_no_partial(tmp_path):
    path = tmp_path / "record.json"
    write_text(path, "old")
    with pytest.raises(KeyError), atomic(path) as partial:
        partial.write_text({}["half"])
    assert path.read_text() == "old"
    assert names(tmp_path) == ["record.json"]


def test_folder_replaces_a_folder(tmp_path):
    path = tmp_path / "store"
    for text in ("old", "new"):
        with atomic(path) as partial:
            partial.mkdir()
            (partial / text).write_text(text)
    assert names(path) == ["new"]


def test_partial_of_a_killed_process_is_removed(tmp_path):
    path = tmp_path / "record.json"
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom plumbline.core.files import atomic\n"
        f"with atomic(Path({str(path)!r})) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": "workflow"}, check=False)
    assert not path.exists()
    assert len(names(tmp_path)) == 1
    write_text(path, "whole")
    assert names(tmp_path) == ["record.json"]


def test_full_disk_is_one_line_that_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"record\.json: no space left"), atomic(tmp_path / "record.json"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_json_round_trip_and_its_mistakes(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None]}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json: is not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"b\.json: does not exist"):
        read_json(tmp_path / "b.json")
