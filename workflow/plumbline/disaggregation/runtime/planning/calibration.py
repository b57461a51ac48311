"""Calibration: the costs with which the cost model comes nearest to what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plumbline.disaggregation.runtime.planning.cost_model import CallDemand, CostModel, LinkCosts, Work

Array = NDArray[np.float64]
START = {
    "flops_per_second": 5e10,
    "memory_bytes_per_second": 1e10,
    "operation_seconds": 5e-6,
    "graph_seconds": 1e-4,
    "call_seconds": 1e-4,
    "serialisation_seconds_per_byte": 1e-9,
    "sharing": 1.1,
}
LINK_START = {"round_trip_seconds": 2e-4, "bytes_per_second": 1e9}
"""Where the search begins; it ends at the same costs from starts a hundred times off, which a test holds."""
OUTLIER = 0.1
"""Log error from which a measurement counts by its size, no longer by its square (soft L1)."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A plan, and how long it took on a link."""

    link: str
    calls: Sequence[CallDemand]
    work: dict[str, Work]
    seconds: float


def calibrated(observed: Sequence[Observation]) -> CostModel:
    """The costs of the least squared log error over all observations: a relative error, the same up and down.

    Searched in the costs' logarithms, so that each is above 0 (Levenberg-Marquardt's successor in scipy, trust region
    reflective, Branch, Coleman & Li 1999). Raises ValueError without observations.
    """
    from scipy.optimize import least_squares

    if not observed:
        raise ValueError("nothing was measured to calibrate from")
    links = list(dict.fromkeys(one.link for one in observed))
    measured = np.log([one.seconds for one in observed])

    def errors(logs: Array) -> Array:
        model = _model(np.exp(logs), links)
        return np.log([model.seconds(one.calls, one.work, one.link) for one in observed]) - measured

    start = np.log([*START.values(), *(value for _ in links for value in LINK_START.values())])
    found = least_squares(errors, start, loss="soft_l1", f_scale=OUTLIER, ftol=1e-6, xtol=1e-6)
    return _model(np.exp(found.x), links)


def _model(values: Array, links: Sequence[str]) -> CostModel:
    """The model with these costs: those of START, then those of each link."""
    own = dict(zip(START, map(float, values), strict=False))
    pairs = values[len(START) :].reshape(-1, len(LINK_START))
    costs = {
        link: LinkCosts(**dict(zip(LINK_START, map(float, pair), strict=True)))
        for link, pair in zip(links, pairs, strict=True)
    }
    return CostModel(links=costs, **own)  # type: ignore[arg-type]
