"""The Python and the commands in the study's README run as printed; only the ports are free ones."""

import os
import re
import shlex
import subprocess
import sys

import pytest
import tokenizers
import transformers

from disaggregation.runtime.workers import GPT2
from disaggregation.some_records import COSTS
from house import PROJECT
from plumbline.disaggregation.runtime.models.weights import build
from plumbline.disaggregation.settings import MICRO, DisaggregationSettings

PAGE = (PROJECT / "workflow" / "plumbline" / "disaggregation" / "README.md").read_text()
COMMANDS = re.findall(r"^    (plumbline worker.*)$", PAGE, flags=re.MULTILINE)
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
PLUMBLINE = [sys.executable, "-c", "from plumbline.cli import main; main()"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PROJECT / "workflow"), "OMP_NUM_THREADS": "1"}
GENERATED = """
import torch
from pathlib import Path
local = AutoModelForCausalLM.from_pretrained("my-model").generate(prompt, max_new_tokens=100)
assert torch.equal(tokens, local), (tokens, local)
"""
SCORED = """
with torch.no_grad():
    torch.testing.assert_close(scores, module(images), rtol=1e-4, atol=1e-5)
"""


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """What the README's commands start, in a folder with the files that its blocks read: printed -> real address."""
    folder = tmp_path_factory.mktemp("readme")
    build(GPT2, "float32", 3).save_pretrained(folder / "my-model")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"Once": 0, "upon": 1, "a": 2, "time": 3}, unk_token="a"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder / "my-model")
    links = {link: COSTS.links[link] for link in DisaggregationSettings().workloads[MICRO]}  # those of a default run
    COSTS.model_copy(update={"links": links}).write(folder / "results" / "disaggregation" / "calibration.json")
    real, started = {"folder": folder}, []
    for command in COMMANDS:
        _, name, *arguments = shlex.split(command)
        if name == "worker-key":
            subprocess.run([*PLUMBLINE, name, *arguments], cwd=folder, env=ENVIRONMENT, check=True)
            continue
        own = arguments[arguments.index("--listen") + 1]
        arguments = ["127.0.0.1:0" if one == own else real.get(one, one) for one in arguments]
        worker = subprocess.Popen(
            [*PLUMBLINE, name, *arguments], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        )
        started.append(worker)
        real[own] = worker.stdout.readline().split()[-1]
    yield real
    for worker in started:
        worker.terminate()
        worker.wait()


def run(code: str, addresses: dict) -> None:
    """As a user would, in a Python of its own."""
    for printed in re.findall(r"127\.0\.0\.1:\d+", code):
        code = code.replace(printed, addresses[printed])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=addresses["folder"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_block_of_python_is_run_here():
    assert len(BLOCKS) == 3
    assert len(COMMANDS) == 4


def test_a_model_on_a_worker_as_printed_generates_what_it_generates_here(addresses):
    run(BLOCKS[0] + GENERATED, addresses)


def test_a_graph_on_two_workers_as_printed_gives_what_the_module_gives(addresses):
    run(BLOCKS[1] + SCORED + BLOCKS[2] + SCORED, addresses)
