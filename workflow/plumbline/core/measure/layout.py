"""Where a process has its memory, which alone can make the same code several percent faster or slower.

Mytkowicz et al. 2009 ("Producing Wrong Data Without Doing Anything Obviously Wrong!", ASPLOS); Curtsinger & Berger 2013
("Stabilizer: Statistically Sound Performance Evaluation", ASPLOS), who shift it at random for that reason.
"""

import mmap
import os
import random

MOST_PAGES = 4096
"""Of address space, which takes no memory as nothing is written there: 16 MiB."""
kept: list[object] = []


def shift_memory() -> None:
    """Has large tensors of this process lie elsewhere than in others that are forked from the same parent.

    Forks begin with the same addresses, so that an effect of these would be in all of them, and no interval would show
    it. The shift is random, also where seeds are set. There are two: of where the kernel maps memory, and of the heap,
    from which malloc serves large tensors as well once any has been freed. What fits a hole that the parent has left
    in its heap can still lie where it lies in another fork.
    """
    import numpy  # a trial of a sweep, which shifts nothing, imports this module

    draw = random.Random(os.urandom(16))
    kept.append(mmap.mmap(-1, mmap.PAGESIZE * draw.randint(1, MOST_PAGES)))
    kept.append(numpy.empty(mmap.PAGESIZE * draw.randint(1, MOST_PAGES), numpy.uint8))
