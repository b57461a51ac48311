"""Launches of ranks that say which process they are; one may leave without a word."""

import os

from plumbline.data_parallel.ranks.rank import main_of_launches


def launch(rank, request):
    if [rank.rank, rank.launch] == request["leaves"]:
        os._exit(0)
    found = {"pid": os.getpid(), "parent": os.getppid()}
    gathered = rank.gathered(found)
    if rank.rank == 0:
        rank.answer([*rank.answered(), gathered])
    rank.slot.beat(rank.launch)
    (again,) = rank.agreeing(rank.launch + 1 < request["launches"])()
    return bool(again)


if __name__ == "__main__":
    main_of_launches(launch)
