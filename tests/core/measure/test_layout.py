"""Forks of one process lie elsewhere in memory than each other."""

import torch

from plumbline.core.run.processes import in_child

NUMBERS = {"large": 1 << 20, "small": 100}


def addresses():
    return {name: torch.empty(size).data_ptr() for name, size in NUMBERS.items()}


def test_forks_of_one_process_have_their_memory_in_different_places():
    found = [in_child(addresses) for _ in range(4)]
    for name in NUMBERS:
        assert len({one[name] for one in found}) > 1
