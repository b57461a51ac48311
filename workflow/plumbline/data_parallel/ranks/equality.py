"""What each rank of the proof of equality runs: every method in every world beside one process, step by step."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from plumbline.core.errors import one_line
from plumbline.core.run.device import device_name
from plumbline.data_parallel.methods.interface import Replica, memory_bytes, method, replica
from plumbline.data_parallel.ranks.rank import Rank, main
from plumbline.data_parallel.settings import ModelSettings, TrainingSettings
from plumbline.data_parallel.training.data import Tokens, batches, open_tokens
from plumbline.data_parallel.training.learner import Learner, rate
from plumbline.data_parallel.training.model import SummedLoss, gpt2

DTYPES = {"float32": torch.float32, "float64": torch.float64}
EXACT = 1e-10
"""Bound in float64 of methods that reduce in the parameters' own dtype."""


def prove(rank: Rank, request: dict[str, Any]) -> None:
    """Answers with `differences` and the device."""
    rank.answer({"differences": differences(rank, request), "device": device_name(rank.device)})


def differences(rank: Rank, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Rank 0 trains alone; then each method trains in each world, and its parameters are compared with these."""
    tokens = open_tokens(Path(request["tokens"]))
    groups = {world: dist.new_group(list(range(world))) for world in request["worlds"]}
    controls = {world: dist.new_group(list(range(world)), backend="gloo") for world in request["worlds"]}
    found = []
    for dtype in DTYPES:
        first: dict[str, Tensor] = {}
        last: dict[str, Tensor] = {}
        if rank.rank == 0:
            first, last, _ = _trained(rank, request, tokens, dtype, "", None, rank.is_asked_alone)
        rank.slot.beat()
        rank.stop_if_asked()
        for world, group in groups.items():
            for name in request["methods"]:
                difference = {"method": name, "world": world, "dtype": dtype}
                if rank.rank < world:
                    stops = partial(rank.is_asked_to_stop, controls[world])
                    difference |= _compared(rank, request, tokens, dtype, name, group, (first, last), stops)
                found.append(difference)
                rank.slot.beat()
                rank.stop_if_asked()
    return found


def _compared(
    rank: Rank,
    request: dict[str, Any],
    tokens: Tokens,
    dtype: str,
    name: str,
    group: dist.ProcessGroup,
    alone: tuple[dict[str, Tensor], dict[str, Tensor]],
    stops: Callable[[], bool],
) -> dict[str, Any]:
    """How far the weights of a method are from those of one process; `unavailable` where the backend cannot.

    alone: the weights of one process before and after the steps, on rank 0.
    """
    kind = method(name)
    try:
        kind.probe(group, rank.device)
    except (NotImplementedError, RuntimeError) as error:  # every rank meets it
        return {"outcome": "unavailable", "message": one_line(error)[:200]}
    _, weights, learner = _trained(rank, request, tokens, dtype, name, group, stops)
    difference: dict[str, Any] = {"outcome": "ok"}
    difference["bound"] = kind.bound if dtype == "float32" else EXACT if kind.exact else None
    difference["wire_bytes_per_step"] = learner.replica.wire_bytes(request["training"]["accumulation"])
    difference["memory_bytes"] = memory_bytes(learner.replica, learner.optimizer)
    difference["ranks_agree"] = _same_everywhere(learner.replica, weights, group)
    if rank.rank == 0:
        first, last = alone
        difference["largest"] = max(float((weights[key] - last[key]).abs().max()) for key in last)
        changed = _median_distance(first, last)
        difference["relative"] = _median_distance(weights, last) / changed
        if kind.rounding is not None:
            wandered = rounding_bound(kind.rounding, learner.training, request["steps"], learner.replica.world)
            difference["relative_bound"] = wandered / changed
    return difference


def rounding_bound(rounding: float, training: TrainingSettings, steps: int, world: int) -> float:
    """How far the median parameter may end from that of one process, if the wire rounds gradients.

    AdamW moves a parameter by about the learning rate, however large its gradient; a relative error of the gradient
    moves it by that share of the rate. A sum over the ranks is rounded about as often as there are ranks. Roundings
    are independent, so those of all ranks and steps add up as the root of the sum of their squares. Over 20 shapes of
    model, batch, rate and steps the median was 0.1 to 0.5 times the bound.

    This says nothing of a parameter whose gradients cancel between ranks: there rounding decides the direction, and
    AdamW goes at full rate. Such are few, but in a narrow model enough to make up most of a root mean square.
    """
    return rounding * math.sqrt(world * math.fsum(rate(training, number) ** 2 for number in range(steps)))


def _trained(
    rank: Rank,
    request: dict[str, Any],
    tokens: Tokens,
    dtype: str,
    name: str,
    group: dist.ProcessGroup | None,
    stops: Callable[[], bool],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Learner]:
    """The weights before and after the steps, and the learner; of one process alone without a group.

    stops: asked before each step, whether to take no more; the caller then ends.
    Ranks draw different weights; those of the first count.
    """
    settings, training = (
        ModelSettings.model_validate(request["model"]),
        TrainingSettings.model_validate(request["training"]),
    )
    split = tokens.splits["train"]
    torch.set_default_dtype(DTYPES[dtype])
    try:
        model = gpt2(settings, tokens.vocabulary, tokens.end_of_target, request["seed"] + rank.rank, rank.device)
        wrapped = replica("", SummedLoss(model), None) if group is None else method(name)(SummedLoss(model), group)
        learner = Learner(wrapped, training, split, rank=rank.rank, device=rank.device)
        first = _copies(learner.replica)
        order = batches(split.lengths, batch=training.batch, seed=request["seed"], epoch=0)
        for number in range(request["steps"]):
            if stops():
                break
            learner.step(order[number % len(order)], number)
            rank.slot.beat(number)
        return first, _copies(learner.replica), learner
    finally:
        torch.set_default_dtype(torch.float32)


def _copies(replica: Replica) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in replica.full_weights().items()}


def _median_distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The median over all parameters of the difference of weights."""
    return float(torch.cat([(first[key] - second[key]).abs().flatten() for key in second]).median())


def _same_everywhere(replica: Replica, weights: dict[str, Tensor], group: dist.ProcessGroup) -> bool:
    """Whether the ranks of the group hold the same weights, bit for bit."""
    if replica.world == 1:
        return True
    device = replica.parameters[0].device
    agree = torch.ones(1, device=device)
    for value in weights.values():
        firsts = value.clone().to(device)
        dist.broadcast(firsts, src=dist.get_global_rank(group, 0), group=group)
        agree *= float(torch.equal(firsts, value.to(device)))
    dist.all_reduce(agree, dist.ReduceOp.MIN, group=group)
    return bool(agree.item() == 1)


if __name__ == "__main__":
    main(prove)
