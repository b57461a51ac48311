"""Launches of ranks that say which process and which cores they have; one may leave without a word."""

import os
from pathlib import Path

from plumbline.data_parallel.ranks.rank import main_of_launches


def launch(rank, request):
    if [rank.rank, rank.launch] == request["leaves"]:
        os._exit(0)
    threads = {core for one in Path("/proc/self/task").iterdir() for core in os.sched_getaffinity(int(one.name))}
    with rank.roaming():
        roaming = sorted(os.sched_getaffinity(0))
    own = sorted(os.sched_getaffinity(0))
    found = {"pid": os.getpid(), "parent": os.getppid(), "threads": sorted(threads), "roaming": roaming, "own": own}
    gathered = rank.gathered(found)
    if rank.rank == 0:
        rank.answer([*rank.answered(), gathered])
    rank.slot.beat(rank.launch)
    (again,) = rank.agreeing(rank.launch + 1 < request["launches"])()
    return bool(again)


if __name__ == "__main__":
    main_of_launches(launch)
