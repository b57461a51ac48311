"""One training step on one rank: its share of the batch, the loss over all ranks' target tokens, the update."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from plumbline.core.measure.spans import Spans
from plumbline.data_parallel.methods.interface import Replica
from plumbline.data_parallel.settings import TrainingSettings
from plumbline.data_parallel.training.data import Indices, Sequences, collate, micro_batches, shard


class Learner:
    """A replica with its optimizer."""

    def __init__(
        self,
        replica: Replica,
        training: TrainingSettings,
        sequences: Sequences,
        *,
        rank: int,
        device: torch.device,
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        """rank: the place in the replica's group. beat: called between forward and backward pass, where a rank that
        waits for the others has got further than one that hangs before it.
        """
        self.replica, self.training, self.sequences = replica, training, sequences
        self.rank, self.device, self.beat = rank, device, beat
        self.lengths, self.targets = sequences.lengths, sequences.targets
        self.optimizer = torch.optim.AdamW(
            replica.parameters,
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=_may_fuse(replica),
        )
        self.spans = Spans(device)

    def step(self, batch: Indices, number: int, share: Indices | None = None) -> Tensor:
        """Trains on the batch, which all ranks of the group are given; the summed loss of this rank's share.

        number: how many steps were taken before. share: this rank's part of the batch; None deals the batch to the
        ranks by length. The gradient is that of Σ token losses over all ranks ÷ Σ target
        tokens over all ranks: methods take the mean over ranks, so each rank scales its sum by world ÷ Σ tokens.
        """
        replica, spans = self.replica, self.spans
        spans.mark("other")
        share = shard(batch, self.lengths, self.rank, replica.world) if share is None else share
        scale = replica.world / int(self.targets[batch].sum())
        parts = micro_batches(share, self.training.accumulation)
        total = torch.zeros((), device=self.device)
        for place, part in enumerate(parts):
            inputs = collate(self.sequences, part, self.device)
            spans.mark("data_wait")
            with nullcontext() if place == len(parts) - 1 else replica.without_sync():
                loss = replica.module(*inputs)
                spans.mark("forward")
                self.beat()
                (loss * scale).backward()
            total += loss.detach()
            spans.mark("backward")
        replica.reduce()
        spans.mark("backward")
        self.update(number)
        spans.mark("optimizer")
        return total

    def update(self, number: int) -> None:
        """Moves the parameters along their gradients, and clears these."""
        if self.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.replica.parameters, self.training.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.training, number)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)  # DDP's gradients are views of its buckets

    def backward_seconds(self, batch: Indices, *, synchronised: bool) -> float:
        """Seconds of a step's backward passes with or without synchronisation; the gradients are discarded."""
        share, spans = shard(batch, self.lengths, self.rank, self.replica.world), Spans(self.device)
        parts = micro_batches(share, self.training.accumulation)
        for place, part in enumerate(parts):
            inputs = collate(self.sequences, part, self.device)
            with nullcontext() if synchronised and place == len(parts) - 1 else self.replica.without_sync():
                loss = self.replica.module(*inputs)
                spans.mark("other")
                loss.backward()
            spans.mark("backward")
        if synchronised:
            self.replica.reduce()
            spans.mark("backward")
        self.optimizer.zero_grad(set_to_none=False)
        spans.settle()
        return spans.seconds["backward"]


def rate(training: TrainingSettings, number: int) -> float:
    """The learning rate after so many steps."""
    return training.learning_rate * min((number + 1) / (training.warmup_steps + 1), 1.0)


def _may_fuse(replica: Replica) -> bool:
    """Whether the fused kernel takes these parameters: it does not take those of other classes, as fully_shard's."""
    return all(type(parameter) is torch.nn.Parameter for parameter in replica.parameters)
