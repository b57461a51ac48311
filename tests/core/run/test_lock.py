import os
import signal
import subprocess
import sys
import time

import pytest

from plumbline.core.errors import UserError
from plumbline.core.run.lock import check_free, hold

PROGRAM = (
    "import sys, time\nfrom pathlib import Path\nfrom plumbline.core.run.lock import hold\n"
    "hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": "workflow"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "results")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_run_is_refused_and_told_who_runs(tmp_path, holder):
    with pytest.raises(UserError, match=f"process {holder.pid} is using it"):
        hold(tmp_path / "results")


def test_whoever_only_asks_is_told_who_runs_and_takes_no_lock(tmp_path, holder):
    check_free(tmp_path / "other")
    with pytest.raises(UserError, match=f"process {holder.pid} is using it"):
        check_free(tmp_path / "results")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    time.sleep(0.01)
    check_free(tmp_path / "results")
    hold(tmp_path / "results")


def test_killed_run_leaves_no_lock_behind(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    time.sleep(0.01)
    hold(tmp_path / "results")


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/results cannot be created: .* is a file; .*--config results="):
        hold(tmp_path / "file" / "results")
