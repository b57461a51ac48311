"""The rounds of several launches of the ranks, put together. Imports no torch."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from plumbline.core.measure.interleave import Rounds, joined


def together(parts: Sequence[dict[str, Any]], launches: int, precision: float) -> dict[str, Any]:
    """What the launches so far found, as one: all their rounds, and all-reduces of each size.

    launches: how many there are at most. precision: as `joined` takes it, which says whether more are needed.
    """
    first, *_ = parts
    rounds = joined([_rounds(part) for part in parts], launches, precision)
    candidates = [
        each | {"seconds": rounds.seconds[:, place].tolist()} for place, each in enumerate(first["candidates"])
    ]
    reduces = [
        same[0] | {"seconds": list(chain.from_iterable(each["seconds"] for each in same))}
        for same in zip(*(part["all_reduces"] for part in parts), strict=True)
    ]
    return first | {
        "candidates": candidates,
        "orders": rounds.orders.tolist(),
        "launches": rounds.processes.tolist(),
        "precise": rounds.precise,
        "all_reduces": reduces,
        "waited_percent": list(chain.from_iterable(part["waited_percent"] for part in parts)),
    }


def _rounds(part: dict[str, Any]) -> Rounds:
    """The rounds of one launch."""
    return Rounds(
        names=[each["name"] for each in part["candidates"]],
        seconds=np.array([each["seconds"] for each in part["candidates"]]).T,
        orders=np.array(part["orders"]),
        processes=np.zeros(len(part["orders"]), dtype=np.intp),
        precise=False,
    )
