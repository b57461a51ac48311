"""A step of fully_shard whose bytes are counted at torch's collectives, beside what the method claims."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from plumbline.data_parallel.methods.fsdp import METHOD
from plumbline.data_parallel.ranks.rank import main
from plumbline.data_parallel.settings import ModelSettings, TrainingSettings
from plumbline.data_parallel.training.data import batches, open_tokens
from plumbline.data_parallel.training.learner import Learner
from plumbline.data_parallel.training.model import SummedLoss, gpt2


class Counted(TorchDispatchMode):
    """Adds up the bytes of the whole tensors that all-gathers make and reduce-scatters take."""

    sent = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = str(function)
        if "_allgather_base_" in name or "_reduce_scatter_base_" in name:
            whole = max((each for each in arguments if isinstance(each, torch.Tensor)), key=torch.Tensor.numel)
            self.sent += whole.numel() * whole.element_size()
        return function(*arguments, **(keywords or {}))


def count(rank, request):
    tokens = open_tokens(Path(request["tokens"]))
    training, split = TrainingSettings.model_validate(request["training"]), tokens.splits["train"]
    model = gpt2(ModelSettings.model_validate(request["model"]), tokens.vocabulary, 1, 0, rank.device)
    replica = METHOD(SummedLoss(model), dist.group.WORLD)
    learner = Learner(replica, training, split, rank=rank.rank, device=rank.device)
    batch = batches(split.lengths, batch=training.batch, seed=0, epoch=0)[0]
    learner.step(batch, 0)
    with Counted() as counted:
        learner.step(batch, 1)
    sent = counted.sent * (rank.world - 1) / rank.world
    rank.answer({"sent": sent, "claimed": replica.wire_bytes(training.accumulation)})


if __name__ == "__main__":
    main(count)
