"""What a sweep says: the optimum, the edge of stability and the sensitivity of the loss to the learning rate."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.core.statistics.bootstrap import RESAMPLES, percentile_interval, resampled_means
from plumbline.lr_sweep.analysis.records import number
from plumbline.lr_sweep.analysis.seeds import has_interval

Array = NDArray[np.float64]

GOOD = ("converged", "spiked")


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

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Which rates have a loss, and did not diverge for any seed: (R,)."""
        return self.measured & ~self.diverged


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The edge of stability: training diverges from it on. All NaN where it was not reached.

    All that a sweep shows is that it lies between `last_stable`, at which no seed diverged, and `first_diverged`, at
    which one did; `rate` is their geometric mean.
    """

    rate: float = math.nan
    last_stable: float = math.nan
    first_diverged: float = math.nan

    @property
    def reached(self) -> bool:
        """Whether a rate above the best one diverged."""
        return not math.isnan(self.rate)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its interval over seeds, or their range where they are few; the ends are NaN for a single seed."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The learning rate where the loss is least: all that the grid shows is that it lies between `low` and `high`.

    Those are the neighbours of the best rate, and of every seed's own best one; NaN where that is an end of the grid.
    `value` is the vertex of a parabola through three rates, a guess that is no better than the parabola; how far it
    moves from seed to seed, `seeds_low` to `seeds_high`, says nothing of that. NaN without a parabola.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds_low: float = math.nan
    seeds_high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All that is computed from a sweep; NaN where it cannot be said."""

    best_rate: float
    """The rate of the grid with the lowest mean final validation loss."""
    best_loss: float
    bracketed: bool
    """Whether both neighbours of the best rate are good: only then is there a parabola."""
    optimum: Optimum
    edge: Edge
    edge_over_best: float
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
        sensitivity=lr_sensitivity(sweep),
    )


def best_index(sweep: Sweep) -> int | None:
    """Index of the good rate with the lowest mean loss; None when no rate is good."""
    means = _mean_over_seeds(sweep.losses, sweep.good)
    return int(np.argmin(means)) if sweep.good.any() else None


def centre(sweep: Sweep) -> int | None:
    """The best rate; without a good one that of the lowest loss which did not diverge; None when there is none."""
    best = best_index(sweep)
    if best is not None or not sweep.stable.any():
        return best
    return int(np.argmin(_mean_over_seeds(sweep.losses, sweep.stable)))


def is_bracketed(sweep: Sweep) -> bool:
    """Whether the best rate has a good neighbour on either side."""
    best = best_index(sweep)
    return best is not None and 0 < best < len(sweep.rates) - 1 and bool(sweep.good[[best - 1, best + 1]].all())


def optimum(sweep: Sweep) -> Optimum:
    """Where the loss is least: the parabola's guess, and the rates between which it lies. NaN when no rate is good.

    The vertex is that of the parabola through the mean losses of the best rate and its two neighbours, in log rate.
    """
    if not sweep.good.any():
        return Optimum()
    low, high = _bracket(sweep)
    if not is_bracketed(sweep):
        return Optimum(low=low, high=high)
    x = np.log(sweep.rates)
    value = float(_vertices(x, _mean_over_seeds(sweep.losses, sweep.good)[:, None])[0])
    replicates = _replicates(sweep.losses[sweep.good])
    moved = (math.nan, math.nan)
    if replicates.shape[1]:
        columns = np.full((len(x), replicates.shape[1]), np.inf)
        columns[sweep.good] = replicates
        moved = _ends(_vertices(x, columns), value)
    seeds_low, seeds_high = np.exp(moved)
    return Optimum(value=math.exp(value), low=low, high=high, seeds_low=float(seeds_low), seeds_high=float(seeds_high))


def _bracket(sweep: Sweep) -> tuple[float, float]:
    """The neighbours, with a loss, of the best rate and of every seed's own best; NaN for none. A rate must be good."""
    good = np.where(sweep.good[:, None], sweep.losses, np.nan)
    own = [int(np.nanargmin(column)) for column in good.T if not np.isnan(column).all()]
    best = [*own, int(np.argmin(_mean_over_seeds(sweep.losses, sweep.good)))]
    below, above = sweep.rates[: min(best)], sweep.rates[max(best) + 1 :]
    below, above = below[sweep.measured[: min(best)]], above[sweep.measured[max(best) + 1 :]]
    return (float(below[-1]) if len(below) else math.nan), (float(above[0]) if len(above) else math.nan)


def edge_of_stability(sweep: Sweep) -> Edge:
    """Between the last rate at which no seed diverged and the first, above the best rate, at which one did.

    Where no rate is good, the least loss that did not diverge stands for the best: rates too low to learn are no
    edge. Not reached when no rate above it diverged, or when all did.
    """
    best = centre(sweep)
    if best is None or not sweep.diverged[best + 1 :].any():
        return Edge()
    first = best + 1 + int(np.argmax(sweep.diverged[best + 1 :]))
    last = int(np.flatnonzero(sweep.stable[:first])[-1])
    low, high = float(sweep.rates[last]), float(sweep.rates[first])
    return Edge(rate=math.sqrt(low * high), last_stable=low, first_diverged=high)


def lr_sensitivity(sweep: Sweep) -> Interval:
    """Nats lost on average when the rate is any of the grid's instead of the best, with its interval over seeds.

    The mean over the (log-spaced) rates of min(final loss, initial loss), minus its least value over them
    (Wortsman et al. 2023, arXiv 2309.14322, section 2.2); losses are means over seeds. It depends on the
    range of the grid. The interval draws seeds with all of their rates; below five seeds it is the range of what each
    gives alone. NaN when no rate is good.
    """
    if not sweep.good.any():
        return Interval()
    capped = np.minimum(sweep.losses, sweep.initial)[sweep.measured]
    means = _mean_over_seeds(capped, np.ones(len(capped), dtype=bool))
    value = float(means.mean() - means.min())
    replicates = _replicates(capped)
    if not replicates.shape[1]:
        return Interval(value=value)
    low, high = _ends(replicates.mean(axis=0) - replicates.min(axis=0), value)
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


def _replicates(losses: Array) -> Array:
    """What the losses could have been: (R, S) -> (R, B), from the seeds with a loss at every rate; B is 0 for one seed.

    Means of 10,000 draws of as many seeds (a percentile bootstrap); where these are too few for that, each seed alone.
    """
    complete = losses[:, ~np.isnan(losses).any(axis=0)]
    seeds = complete.shape[1]
    if seeds < 2:
        return complete[:, :0]
    if not has_interval(seeds):
        return complete
    return resampled_means(complete)


def _ends(replicates: Array, value: float) -> tuple[float, float]:
    """The 95% interval of a bootstrap's replicates; of the few seeds' own values their range, with `value` in it."""
    if len(replicates) == RESAMPLES:
        return percentile_interval(replicates)
    return min(float(replicates.min()), value), max(float(replicates.max()), value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
