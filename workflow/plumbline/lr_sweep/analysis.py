"""What a sweep says: the optimum, the edge of stability and the sensitivity of the loss to the learning rate."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.lr_sweep.records import number

Array = NDArray[np.float64]

GOOD = ("converged", "spiked")
RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Final losses of a grid: `rates` (R,) rising, `losses`, `initial` and `classes` (R, S), a column a seed.

    Losses in nats. A loss that is not finite is infinite; a trial without a loss is NaN and has the class "".
    """

    rates: Array
    losses: Array
    initial: Array
    classes: NDArray[np.str_]

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which rates have a trial with a loss: (R,)."""
        return (self.classes != "").any(axis=1)

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which rates converged, with or without a spike, for every seed that has a loss: (R,)."""
        return self.measured & (np.isin(self.classes, GOOD) | (self.classes == "")).all(axis=1)

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Which rates diverged for at least one seed: (R,)."""
        return (self.classes == "diverged").any(axis=1)


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The edge of stability: between `last_good` and `first_bad`, put at their geometric mean `rate`.

    All NaN where it was not reached.
    """

    rate: float = math.nan
    last_good: float = math.nan
    first_bad: float = math.nan

    @property
    def reached(self) -> bool:
        """Whether a rate above the best one diverged."""
        return not math.isnan(self.rate)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its bootstrap 95% interval over seeds; the ends are NaN for a single seed."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All that is computed from a sweep; NaN where it cannot be said."""

    best_rate: float
    """The rate of the grid with the lowest mean final validation loss."""
    best_loss: float
    bracketed: bool
    """Whether both neighbours of the best rate are good: only then is the optimum a parabola's."""
    optimum: Interval
    edge: Edge
    edge_over_best: float
    edge_over_optimum: float
    sensitivity: Interval

    def as_json(self) -> dict[str, Any]:
        """Plain JSON: null for NaN."""
        return _without_nan(asdict(self))


def sweep_of(records: Sequence[dict[str, Any]]) -> Sweep:
    """The final validation losses of records (as `read_records` gives them) as a grid of rates and seeds."""
    rates = sorted({float(record["rate"]) for record in records})
    seeds = sorted({int(record["seed"]) for record in records})
    losses, initial = np.full((2, len(rates), len(seeds)), np.nan)
    classes = np.full(losses.shape, "", dtype="<U12")
    for record in records:
        if not record.get("class"):
            continue
        place = rates.index(float(record["rate"])), seeds.index(int(record["seed"]))
        loss = number(record["final_validation_loss"])
        losses[place] = loss if math.isfinite(loss) else math.inf
        initial[place] = number(record["initial_validation_loss"])
        classes[place] = record["class"]
    return Sweep(rates=np.array(rates), losses=losses, initial=initial, classes=classes)


def analyse(sweep: Sweep) -> Analysis:
    """Everything at once."""
    best, vertex, edge = best_index(sweep), optimum(sweep), edge_of_stability(sweep)
    best_rate = math.nan if best is None else float(sweep.rates[best])
    return Analysis(
        best_rate=best_rate,
        best_loss=math.nan if best is None else float(np.nanmean(sweep.losses[best])),
        bracketed=is_bracketed(sweep),
        optimum=vertex,
        edge=edge,
        edge_over_best=edge.rate / best_rate,
        edge_over_optimum=edge.rate / vertex.value,
        sensitivity=lr_sensitivity(sweep),
    )


def best_index(sweep: Sweep) -> int | None:
    """Index of the good rate with the lowest mean loss; None when no rate is good."""
    means = _mean_over_seeds(sweep.losses, sweep.good)
    return int(np.argmin(means)) if sweep.good.any() else None


def centre(sweep: Sweep) -> int | None:
    """The best rate; without a good one that of the lowest loss which did not diverge; None when there is none."""
    best = best_index(sweep)
    stayed = sweep.measured & ~sweep.diverged
    if best is not None or not stayed.any():
        return best
    return int(np.argmin(_mean_over_seeds(sweep.losses, stayed)))


def is_bracketed(sweep: Sweep) -> bool:
    """Whether the best rate has a good neighbour on either side."""
    best = best_index(sweep)
    return best is not None and 0 < best < len(sweep.rates) - 1 and bool(sweep.good[[best - 1, best + 1]].all())


def optimum(sweep: Sweep) -> Interval:
    """The learning rate where the loss is least, with its interval over seeds.

    The vertex of the parabola through the mean losses of the best rate and its two neighbours, in log rate;
    the best rate itself when a neighbour is absent or not good. The interval is a percentile bootstrap: seeds
    are drawn with all of their rates, and best rate and vertex are found anew in each of 10,000 resamples.
    NaN when no rate is good.
    """
    if not sweep.good.any():
        return Interval()
    x = np.log(sweep.rates)
    value = _vertices(x, _mean_over_seeds(sweep.losses, sweep.good)[:, None])[0]
    complete = _complete(sweep.losses[sweep.good])
    if complete.sum() < 2:
        return Interval(value=float(np.exp(value)))
    resampled = np.full((len(x), RESAMPLES), np.inf)
    resampled[sweep.good] = sweep.losses[sweep.good][:, complete] @ _weights(int(complete.sum()))
    low, high = _ends(_vertices(x, resampled))
    return Interval(value=float(np.exp(value)), low=float(np.exp(low)), high=float(np.exp(high)))


def edge_of_stability(sweep: Sweep) -> Edge:
    """Where training stops to be stable: geometric mean of the last good and the first bad rate.

    Good is a rate that converged, with or without a spike, for every seed; the first bad one is the lowest
    that is not good among those above the best rate, so that rates too low to learn are no edge. Not reached
    when no rate above the best one diverged, or when none is good.
    """
    best = best_index(sweep)
    if best is None or not sweep.diverged[best + 1 :].any():
        return Edge()
    bad = sweep.measured & ~sweep.good
    first_bad = best + 1 + int(np.argmax(bad[best + 1 :]))
    last_good = int(np.flatnonzero(sweep.good[:first_bad])[-1])
    last, first = float(sweep.rates[last_good]), float(sweep.rates[first_bad])
    return Edge(rate=math.sqrt(last * first), last_good=last, first_bad=first)


def lr_sensitivity(sweep: Sweep) -> Interval:
    """Nats lost on average when the rate is any of the grid's instead of the best, with its interval over seeds.

    The mean over the (log-spaced) rates of min(final loss, initial loss), minus its least value over them
    (Wortsman et al. 2023, arXiv 2309.14322, section 2.2); losses are means over seeds. It depends on the
    range of the grid. The interval is a percentile bootstrap that draws seeds with all of their rates. NaN when
    no rate is good.
    """
    if not sweep.good.any():
        return Interval()
    capped = np.minimum(sweep.losses, sweep.initial)[sweep.measured]
    means = _mean_over_seeds(capped, np.ones(len(capped), dtype=bool))
    value = float(means.mean() - means.min())
    complete = _complete(capped)
    if complete.sum() < 2:
        return Interval(value=value)
    resampled = capped[:, complete] @ _weights(int(complete.sum()))
    low, high = _ends(resampled.mean(axis=0) - resampled.min(axis=0))
    return Interval(value=value, low=low, high=high)


def _vertices(x: Array, losses: Array) -> Array:
    """Vertex of the parabola through the least loss and its neighbours: x (R,), losses (R, B) -> (B,).

    Where a neighbour is absent or infinite, x of the least loss. For the middle point being the least, the
    vertex lies between the middles of the two gaps.
    """
    best = np.argmin(losses, axis=0)
    columns = np.arange(losses.shape[1])
    left, right = np.maximum(best - 1, 0), np.minimum(best + 1, len(x) - 1)
    fits = (left < best) & (best < right)
    fits &= np.isfinite(losses[left, columns]) & np.isfinite(losses[right, columns])
    least = losses[best, columns]
    below = np.where(fits, losses[left, columns], least) - least
    above = np.where(fits, losses[right, columns], least) - least
    before, after = x[best] - x[left], x[right] - x[best]
    curvature = below * after + above * before
    shift = (below * after**2 - above * before**2) / (2 * np.where(curvature > 0, curvature, 1.0))
    return np.asarray(x[best] + np.where(curvature > 0, shift, 0.0))


def _mean_over_seeds(losses: Array, chosen: NDArray[np.bool_]) -> Array:
    """Mean over the seeds with a loss (R, S) -> (R,); infinite for rates that are not `chosen`."""
    means = np.full(len(losses), np.inf)
    means[chosen] = np.nanmean(losses[chosen], axis=1) if chosen.any() else np.inf
    return means


def _complete(losses: Array) -> NDArray[np.bool_]:
    """Which seeds have a loss at every rate: (R, S) -> (S,)."""
    return np.asarray(~np.isnan(losses).any(axis=0))


def _weights(seeds: int) -> Array:
    """How often each seed is drawn, over their number: (seeds, RESAMPLES)."""
    drawn = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    return np.asarray(drawn.T / seeds)


def _ends(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
