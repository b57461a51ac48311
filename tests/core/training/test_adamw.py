import subprocess
import sys

import pytest
import torch
from torch import nn

from plumbline.core.training.adamw import AdamW


def two_models():
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def step_both(ours, theirs, own, reference):
    for _ in range(4):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        own.step(0.01)
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("spare_vectors", [True, False])
def test_update_is_that_of_torch_optim(fused, spare_vectors):
    ours, theirs = two_models()
    own = AdamW(ours.parameters(), beta1=0.8, beta2=0.99, weight_decay=0.3, fused=fused, spare_vectors=spare_vectors)
    decay = {2: 0.3, 1: 0.0 if spare_vectors else 0.3}
    groups = [
        {"params": [w for w in theirs.parameters() if w.dim() == dim], "weight_decay": decay[dim]} for dim in decay
    ]
    step_both(ours, theirs, own, torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.99)))


def test_update_without_decay_is_adams():
    ours, theirs = two_models()
    own = AdamW(ours.parameters(), beta1=0.9, beta2=0.999, weight_decay=0.0, fused=True)
    step_both(ours, theirs, own, torch.optim.Adam(theirs.parameters(), lr=0.01))


def test_update_imports_no_compiler():
    program = """
import sys, torch
from plumbline.core.training.adamw import AdamW
weight = torch.nn.Parameter(torch.ones(2))
optimizer = AdamW([weight], beta1=0.9, beta2=0.999, weight_decay=0.1, fused=True)
weight.square().sum().backward()
optimizer.step(0.1)
optimizer.clear()
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
