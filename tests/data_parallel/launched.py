"""Launches of ranks that say which process they are; one may leave without a word, or get a signal at a bad moment."""

import os
import signal

from plumbline.data_parallel.ranks.rank import main_of_launches


def launch(rank, request):
    if [rank.rank, rank.launch] == request["leaves"]:
        os._exit(0)
    moment = request["signalled"] if (rank.rank, rank.launch) == (1, 0) else ""
    agreeing = rank.agreeing
    if moment == "while the ranks agree":
        rank.agreeing = lambda *values, **more: signalled(agreeing(*values, **more))
    rank.stop_if_asked()
    rank.stop_if_asked()
    found = {"pid": os.getpid(), "parent": os.getppid()}
    gathered = rank.gathered(found)
    if rank.rank == 0:
        rank.answer([*rank.answered(), gathered])
    rank.slot.beat(rank.launch)
    (again,) = rank.agreeing(rank.launch + 1 < request["launches"])()
    return signalled(bool(again)) if moment == "after they have agreed for the last time" else bool(again)


def signalled(value):
    """The same, after a signal to this process."""
    os.kill(os.getpid(), signal.SIGTERM)
    return value


if __name__ == "__main__":
    main_of_launches(launch)
