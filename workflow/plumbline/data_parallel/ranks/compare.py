"""What each rank of the comparison runs: rank 0 calls the turns, and the ranks of a candidate's group take them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from plumbline.core.measure.clocks import clocks
from plumbline.core.measure.interleave import CONTROL, MIN_ROUNDS, Candidate, interleave
from plumbline.core.measure.priority import take_priority
from plumbline.core.run.device import device_name
from plumbline.data_parallel.methods.interface import replica
from plumbline.data_parallel.ranks.rank import Rank, main_of_launches
from plumbline.data_parallel.ranks.rounds import together
from plumbline.data_parallel.settings import ModelSettings, TrainingSettings
from plumbline.data_parallel.training.data import Indices, Tokens, batches, open_tokens
from plumbline.data_parallel.training.learner import Learner
from plumbline.data_parallel.training.model import SummedLoss, gpt2

STOP = -1
WARM_UPS = 2
ALL_REDUCE_BYTES = tuple(4**power for power in range(3, 13))
"""From 64 bytes to 16 MiB."""
ALL_REDUCE_REPEATS = 12


class Arm:
    """A candidate on this rank: who takes part in its turns, and what they do."""

    def __init__(self, rank: Rank, request: dict[str, Any], tokens: Tokens, described: dict[str, Any]) -> None:
        self.rank, self.described = rank, described
        self.world, method = described["world"], described["method"]
        self.takes_part = rank.rank < self.world
        self.threads: int = described["threads"]
        self.group = dist.new_group(list(range(self.world)))  # every rank of the job calls it
        training = TrainingSettings.model_validate(request["training"])
        settings, split = ModelSettings.model_validate(request["model"]), tokens.splits["train"]
        order = batches(split.lengths, batch=training.batch, seed=request["seed"], epoch=0)
        chosen = typical([batch for batch in order if len(batch) == training.batch], split.lengths, request["steps"])
        self.work = whole_batches(chosen, self.world) if described["scaling"] == "weak" else dealt(chosen)
        copies = self.world if described["scaling"] in ("weak", "independent") else 1
        self.tokens = copies * int(sum(split.lengths[batch].sum() for batch in chosen))
        if self.takes_part:
            model = gpt2(settings, tokens.vocabulary, tokens.end_of_target, request["seed"], rank.device)
            alone = method is None
            made = replica(method or "ddp", SummedLoss(model), None if alone else self.group)
            self.learner = Learner(made, training, split, rank=0 if alone else rank.rank, device=rank.device)
            self.parameters = sum(parameter.numel() for parameter in model.parameters())

    def turn(self) -> float:
        """The candidate's steps, on every rank of its group; the mean over ranks of their seconds, on rank 0.

        Each rank times its own steps: it would go on at once with the next. What the method has it wait for the others
        is part of a step.
        """
        if not self.takes_part:
            for number in range(len(self.work)):  # as often as the others, so that none of them looks further
                self.rank.slot.beat(number)
            return 0.0
        own = self._steps()
        if self.world == 1:
            return own
        spent = torch.tensor(own, dtype=torch.float64, device=self.rank.device)
        dist.all_reduce(spent, group=self.group)
        return float(spent) / self.world

    def _steps(self) -> float:
        """The steps on this rank; their seconds."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        began = time.perf_counter()
        for number, (batch, share) in enumerate(self.work):
            self.learner.step(batch, number, share)
            self.rank.slot.beat(number)
        if self.rank.device.type == "cuda":
            torch.cuda.synchronize()
        own = time.perf_counter() - began
        torch.set_num_threads(before)
        return own


def typical(whole: Sequence[Indices], lengths: Indices, count: int) -> list[Indices]:
    """So many of the batches: those whose number of tokens is nearest to the mean, again from the first if need be.

    A batch holds sequences of similar lengths, so one that is taken at random may have a fraction of the tokens.
    """
    tokens = np.array([lengths[batch].sum() for batch in whole])
    nearest = np.argsort(abs(tokens - tokens.mean()), kind="stable")
    return [whole[nearest[number % len(whole)]] for number in range(count)]


def offered(candidates: Sequence[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """The candidates for `cpu` or `cuda`; there a process computes with its GPU, and threads make no difference."""
    return [each for each in candidates if device == "cpu" or each["scaling"] != "threads"]


def whole_batches(chosen: Sequence[Indices], world: int) -> list[tuple[Indices, Indices | None]]:
    """Weak scaling's steps: the batch of all ranks, and a rank's share of it, one of the `chosen` as it is.

    In a step all ranks hold the same one, as independent processes do. So each pads as one process does and none waits
    for a rank with longer sequences, as in training, which cuts its larger batches from sequences sorted by length.
    """
    return [(np.tile(batch, world), batch) for batch in chosen]


def dealt(chosen: Sequence[Indices]) -> list[tuple[Indices, Indices | None]]:
    """The steps of the other kinds: the ranks of a group share each batch by length."""
    return [(batch, None) for batch in chosen]


def compare(rank: Rank, request: dict[str, Any]) -> bool:
    """One launch: times the candidates in random order, round after round, then all-reduces of growing size.

    Rank 0 adds what it found to its answer. Returns, on every rank, whether another launch is wanted.
    """
    tokens = open_tokens(Path(request["tokens"]))
    arms = [Arm(rank, request, tokens, described) for described in offered(request["candidates"], rank.device.type)]
    for arm in arms:
        for _ in range(WARM_UPS):
            rank.stop_if_asked()
            arm.turn()
    answer: dict[str, Any] = {}
    if rank.rank == 0:
        answer = _conducted(rank, request, arms)
        _call(rank, STOP)
    else:
        while (called := _call(rank, None)) != STOP:
            arms[called].turn()
            rank.stop_if_asked()
    reduces = [entry for world in request["worlds"] if world > 1 for entry in _all_reduces(rank, world)]
    answer |= {"all_reduces": reduces, "device": device_name(rank.device)}
    wants_another = False
    if rank.rank == 0:
        parts = [*rank.answered(), answer]
        rank.answer(parts)
        launches = request["launches"]
        wants_another = len(parts) < launches and not together(parts, launches, request["precision"])["precise"]
    (agreed,) = rank.agreeing(wants_another)()
    rank.stop_if_asked()
    return bool(agreed)


def _conducted(rank: Rank, request: dict[str, Any], arms: list[Arm]) -> dict[str, Any]:
    """The rounds of a launch, called by rank 0."""
    waits: list[float] = []
    watched = _watched(arms)

    def timed(number: int) -> Callable[[], float]:
        def run() -> float:
            before = clocks()["run_delay"]
            _call(rank, number)
            seconds, after = arms[number].turn(), clocks()["run_delay"]
            if arms[number] is watched and before is not None and after is not None:
                waits.append(100 * (after - before) / seconds)
            rank.stop_if_asked()
            return seconds

        return run

    candidates = [
        Candidate(name=arm.described["name"], run=timed(number), work=float(arm.tokens))
        for number, arm in enumerate(arms)
    ]
    rounds = interleave(
        candidates[0],
        candidates[1:],
        seconds=request["seconds"] / request["launches"],
        precision=request["precision"],
        min_rounds=-(-MIN_ROUNDS // request["launches"]),
        seed=[request["seed"], rank.launch],
    )
    described = {arm.described["name"]: arm for arm in arms}
    described[CONTROL] = arms[0]
    turns = [
        {
            **{key: described[name].described[key] for key in ("method", "world", "scaling")},
            "name": name,
            "tokens": described[name].tokens,
            "seconds": rounds.seconds[:, place].tolist(),
        }
        for place, name in enumerate(rounds.names)
    ]
    step_tokens = arms[0].tokens // len(arms[0].work)
    return {
        "candidates": turns,
        "orders": rounds.orders.tolist(),
        "parameters": arms[0].parameters,
        "step_tokens": step_tokens,
        "waited_percent": waits,
    }


def _watched(arms: list[Arm]) -> Arm:
    """The arm whose turns show whether the machine is busy: the most independent processes, or one where none are.

    These never wait for each other, so a core that they wait for is one that something else has. The system's own
    pressure would count the ranks' threads of communication too, which compete with the ranks.
    """
    independent = [arm for arm in arms if arm.described["scaling"] == "independent"]
    return max(independent, key=lambda arm: arm.world, default=arms[0])


def _call(rank: Rank, number: int | None) -> int:
    """Whose turn it is: told by rank 0, heard by the others, which block in a read until then."""
    called = torch.tensor([STOP if number is None else number])
    dist.broadcast(called, src=0, group=rank.control)
    return int(called)


def _all_reduces(rank: Rank, world: int) -> list[dict[str, Any]]:
    """Seconds of all-reduces of growing size among the first `world` ranks; the others wait."""
    group = dist.new_group(list(range(world)))
    found = []
    for size in ALL_REDUCE_BYTES if rank.rank < world else ():
        data, seconds = torch.zeros(size // 4, device=rank.device), []
        for repeat in range(ALL_REDUCE_REPEATS + 2):
            dist.barrier(group=group)
            began = time.perf_counter()
            dist.all_reduce(data, group=group)
            if rank.device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 2:
                seconds.append(time.perf_counter() - began)
            rank.slot.beat()
        found.append({"world": world, "bytes": size, "seconds": seconds})
    dist.barrier(group=rank.control)
    return found


if __name__ == "__main__":
    take_priority()  # before there are threads, which have it then
    main_of_launches(compare)
