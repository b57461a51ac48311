"""A turn of independent processes and one of `ddp`, whose clocks tick a second for each rank at each look."""

from pathlib import Path
from types import SimpleNamespace

from plumbline.data_parallel.ranks import compare
from plumbline.data_parallel.ranks.rank import main
from plumbline.data_parallel.training.data import open_tokens


def turns(rank, request):
    looks = iter(range(1000))
    compare.time = SimpleNamespace(perf_counter=lambda: next(looks) * (rank.rank + 1.0))
    tokens = open_tokens(Path(request["tokens"]))
    arms = [compare.Arm(rank, request, tokens, described) for described in request["candidates"]]
    rank.answer([arm.turn() for arm in arms])


if __name__ == "__main__":
    main(turns)
