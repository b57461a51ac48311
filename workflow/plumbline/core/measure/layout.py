"""Where a process has its memory, which alone can make the same code several percent faster or slower.

Mytkowicz et al. 2009 ("Producing Wrong Data Without Doing Anything Obviously Wrong!", ASPLOS); Curtsinger & Berger 2013
("Stabilizer: Statistically Sound Performance Evaluation", ASPLOS), who shift it at random for that reason.
"""

import mmap
import os
import random

MOST_PAGES = 4096
"""Of address space, which takes no memory: 16 MiB."""
kept: list[object] = []


def shift_memory() -> None:
    """Has large tensors of this process lie elsewhere than in others that are forked from the same parent.

    Forks begin with the same addresses, so that an effect of these would be in all of them, and no interval would show
    it. The shift is random, also where seeds are set. What is small fills holes of the heap, which forks share.
    """
    draw = random.Random(os.urandom(16))
    kept.append(mmap.mmap(-1, mmap.PAGESIZE * draw.randint(1, MOST_PAGES)))
