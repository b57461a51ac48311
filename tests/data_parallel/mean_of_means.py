"""The proof of equality with the wrong loss: each rank's mean over its own tokens, averaged over ranks."""

import torch

from plumbline.data_parallel.ranks import equality
from plumbline.data_parallel.ranks.rank import main
from plumbline.data_parallel.training.data import shard
from plumbline.data_parallel.training.learner import Learner

whole = Learner.step


def step(self, batch, number):
    own = shard(batch, self.lengths, self.rank, self.replica.world)
    everything, mine = self.targets[batch].sum(), self.targets[own].sum()
    forward = type(self.replica.module).forward

    def scaled(module, *inputs):
        return forward(module, *inputs) * (float(everything) / (self.replica.world * max(float(mine), 1.0)))

    type(self.replica.module).forward = scaled
    try:
        return whole(self, batch, number)
    finally:
        type(self.replica.module).forward = forward


if __name__ == "__main__":
    torch.manual_seed(0)
    Learner.step = step
    main(equality.prove)
