"""`plumbline worker` and `plumbline worker-key`, as a user runs them."""

import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from disaggregation.runtime.some_graphs import Layers
from disaggregation.runtime.workers import GPT2
from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.client import connect
from plumbline.disaggregation.runtime.deployment import Deployment
from plumbline.disaggregation.runtime.graphs.capture import capture
from plumbline.disaggregation.runtime.models.weights import build
from plumbline.disaggregation.runtime.planning.schedule import Captured, Policy, schedule
from plumbline.disaggregation.runtime.transport.address import parse_address
from plumbline.disaggregation.runtime.transport.keys import read_key, write_key
from plumbline.disaggregation.runtime.transport.remote import Remote

WORKFLOW = Path(__file__).parents[2] / "workflow"
PLUMBLINE = [sys.executable, "-c", "from plumbline.cli import main; main()"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(WORKFLOW)}


def plumbline(*arguments):
    return subprocess.run([*PLUMBLINE, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)


@contextmanager
def started(key, *options):
    """The address of a worker that was started from the command line, and ends well when it is told to."""
    command = [*PLUMBLINE, "worker", "--listen", "127.0.0.1:0", "--key-file", str(key), *options]
    worker = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield worker.stdout.readline().removeprefix("listening on ").strip()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.communicate()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("stream-seconds", "nan"),
        ("stall-seconds", "0"),
        ("connections", "0"),
        ("sessions-gib", "-5"),
        ("peer", "gpu-2"),
    ],
)
def test_a_number_or_address_that_a_worker_cannot_take_is_one_line(tmp_path, option, value):
    command = [*PLUMBLINE, "worker", "--listen", "127.0.0.1:0", "--key-file", str(tmp_path / "none.key")]
    found = subprocess.run([*command, f"--{option}={value}"], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1
    assert (option if option != "peer" else "'gpu-2': is not an address") in found.stderr
    assert "Traceback" not in found.stderr


def test_four_lines_run_a_transformers_model_on_a_worker(tmp_path):
    key = tmp_path / "worker.key"
    assert plumbline("worker-key", str(key)).returncode == 0
    with started(key) as address:
        model, prompt = build(GPT2, "float32", 3), torch.tensor([[1, 2, 3]])
        with connect(address, key) as client:
            found = client.upload(model).generate(prompt, max_new_tokens=20)
        assert torch.equal(found, model.generate(prompt, max_new_tokens=20, do_sample=False))


def test_the_readme_runs_a_captured_graph_as_a_pipeline_on_two_workers(tmp_path):
    key = tmp_path / "worker.key"
    plumbline("worker-key", str(key))
    with started(key) as second, started(key, "--peer", second) as first:
        module, images = Layers(), torch.randn(16, 8)
        graphs = {
            rows: capture(module, {"image": images[:rows]}, ["scores"], model="mine", phase="forward")
            for rows in (16, 1)
        }
        program = Captured(graphs={rows: graph for rows, (graph, _) in graphs.items()}, rows=16, wanted=["scores"])
        plan = schedule(
            program, Policy.of("weights_resident", "wanted_only", "pipeline", "direct_hop"), micro_batches=16
        )
        addresses = [first, second]
        deployment = Deployment([Remote(address, read_key(key)) for address in addresses], graphs[1][1])
        deployment.connect_peers(0, 1, addresses[1])
        deployment.load(plan)
        with torch.no_grad():
            torch.testing.assert_close(deployment.run(plan, {"image": images})["scores"], module(images))


def test_a_new_key_is_secret_and_never_overwrites(tmp_path):
    path = tmp_path / "key"
    write_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_key(path)) == 32
    with pytest.raises(UserError, match="exists already"):
        write_key(path)


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        ("ab" * 32, 0o644, "other users may read this key; run `chmod 600"),
        ("ab" * 8, 0o600, "a key is 16 to 64 bytes in hexadecimal"),
        ("no hex at all", 0o600, "a key is 16 to 64 bytes in hexadecimal"),
    ],
)
def test_a_key_that_is_not_secret_or_not_a_key_is_refused(tmp_path, text, mode, reason):
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(UserError, match=reason):
        read_key(path)


def test_a_missing_key_names_the_command_that_writes_one(tmp_path):
    with pytest.raises(UserError, match=r"key: does not exist; write one with `plumbline worker-key "):
        read_key(tmp_path / "key")


def test_addresses():
    assert parse_address(":7700") == ("127.0.0.1", 7700)
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("10.0.0.2:7700") == ("10.0.0.2", 7700)
    for wrong in ("7700", "host:", "host:x", "host:99999"):
        with pytest.raises(UserError, match=r"write HOST:PORT"):
            parse_address(wrong)
