"""Forks of one process have large tensors elsewhere in memory than each other."""

import subprocess
import sys

import pytest

LAUNCHER = """
import mmap
import torch
from plumbline.core.run.processes import in_child

{before}
print(len({{in_child(lambda: torch.empty({elements}).data_ptr() // mmap.PAGESIZE) for _ in range(8)}}))
"""


@pytest.mark.parametrize(
    ("before", "elements"),
    [
        pytest.param("", 1 << 20, id="mapped by the kernel"),
        pytest.param("torch.empty(1 << 22)", 1 << 20, id="on the heap, as 16 MiB have been freed"),
        pytest.param("torch.empty(1 << 22)", 1 << 24, id="too large for the heap"),
    ],
)
def test_forks_of_one_process_have_their_large_tensors_in_different_places(before, elements):
    # A process of its own: a parent that has held much leaves holes, into which forks put the same tensor.
    code = LAUNCHER.format(before=before, elements=elements)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 4
