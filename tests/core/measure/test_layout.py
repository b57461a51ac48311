"""Forks of one process have large tensors elsewhere in memory than each other."""

import torch

from plumbline.core.run.processes import in_child


def address():
    return torch.empty(1 << 20).data_ptr()


def test_forks_of_one_process_have_their_large_tensors_in_different_places():
    assert len({in_child(address) for _ in range(4)}) > 1
