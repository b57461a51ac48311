"""The results of a sweep: optimum, edge of stability, and how sensitive the loss is to the learning rate."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.core.statistics.bootstrap import RESAMPLES, percentile_interval
from plumbline.lr_sweep.analysis.seeds import has_interval
from plumbline.lr_sweep.record import TrialRecord, or_nan

Array = NDArray[np.float64]

GOOD = ("converged", "spiked")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Final losses of a grid: `rates` (R,) rising; `losses`, `initial` and `classes` (R, S), one column per seed.

    Losses are in nats. One that is not finite is stored as infinite; a trial without a loss is NaN, its class is "".
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
    """The edge of stability: the rate above which training diverges. All NaN when it was not reached.

    The sweep only shows that it lies between `last_stable`, where no seed diverged, and `first_diverged`, where at
    least one did; `rate` is their geometric mean.
    """

    rate: float = math.nan
    last_stable: float = math.nan
    first_diverged: float = math.nan

    @property
    def reached(self) -> bool:
        """Whether a rate above the best one diverged."""
        return not math.isnan(self.rate)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval over seeds, or with their range when they are few; the ends are NaN for one seed."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The learning rate with the lowest loss: the grid only shows that it lies between `low` and `high`.

    These are the neighbours of the best rate and of each seed's best rate; NaN at an end of the grid. `value` is the
    vertex of a parabola through three rates, a guess that is only as good as the parabola. `seeds_low` and
    `seeds_high` are how far the vertex moves between seeds, not an error bound. NaN without a parabola.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds_low: float = math.nan
    seeds_high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Everything computed from a sweep; NaN where it is undefined."""

    best_rate: float
    """The rate of the grid with the lowest mean final validation loss, among those that converged for every seed."""
    best_loss: float
    bracketed: bool
    """Whether both neighbours of the best rate converged: only then is there a parabola."""
    optimum: Optimum
    edge: Edge
    edge_over_best: float
    sensitivity: Estimate

    def to_json(self) -> dict[str, Any]:
        """The analysis as JSON values, null for NaN."""
        return _without_nan(asdict(self))


def sweep_of(records: Sequence[TrialRecord]) -> Sweep:
    """The final validation losses of `records` as a grid of rates and seeds."""
    rates = sorted({record.rate for record in records})
    seeds = sorted({record.seed for record in records})
    losses, initial = np.full((2, len(rates), len(seeds)), np.nan)
    classes = np.full(losses.shape, "", dtype="<U12")
    for record in records:
        if not record.stability:
            continue
        cell = rates.index(record.rate), seeds.index(record.seed)
        loss = or_nan(record.final_validation_loss)
        losses[cell] = loss if math.isfinite(loss) else math.inf
        initial[cell] = or_nan(record.initial_validation_loss)
        classes[cell] = record.stability
    return Sweep(rates=np.array(rates), losses=losses, initial=initial, classes=classes)


def analyse(sweep: Sweep) -> Analysis:
    """Optimum, edge and sensitivity of a sweep."""
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


def best_or_stable(sweep: Sweep) -> int | None:
    """Index of the best rate; when none is good, of the lowest loss that did not diverge; None when all diverged."""
    best = best_index(sweep)
    if best is not None or not sweep.stable.any():
        return best
    return int(np.argmin(_mean_over_seeds(sweep.losses, sweep.stable)))


def is_bracketed(sweep: Sweep) -> bool:
    """Whether both neighbours of the best rate are good."""
    best = best_index(sweep)
    return best is not None and 0 < best < len(sweep.rates) - 1 and bool(sweep.good[[best - 1, best + 1]].all())


def optimum(sweep: Sweep) -> Optimum:
    """Where the loss is lowest: the vertex of a parabola, and the rates it lies between. NaN when no rate is good.

    The parabola goes through the mean losses of the best rate and its two neighbours, in log rate.
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
    """The nearest rates with a loss outside the best rate and each seed's best; NaN for none. A rate must be good."""
    good = np.where(sweep.good[:, None], sweep.losses, np.nan)
    by_seed = [int(np.nanargmin(column)) for column in good.T if not np.isnan(column).all()]
    best = [*by_seed, int(np.argmin(_mean_over_seeds(sweep.losses, sweep.good)))]
    below, above = sweep.rates[: min(best)], sweep.rates[max(best) + 1 :]
    below, above = below[sweep.measured[: min(best)]], above[sweep.measured[max(best) + 1 :]]
    return (float(below[-1]) if len(below) else math.nan), (float(above[0]) if len(above) else math.nan)


def edge_of_stability(sweep: Sweep) -> Edge:
    """The edge: between the last rate where no seed diverged and the first one above the best rate where a seed did.

    When no rate is good, the lowest loss that did not diverge stands in for the best, because rates too low to learn
    are not an edge. Not reached when no rate above it diverged, or when all rates did.
    """
    best = best_or_stable(sweep)
    if best is None or not sweep.diverged[best + 1 :].any():
        return Edge()
    first = best + 1 + int(np.argmax(sweep.diverged[best + 1 :]))
    last = int(np.flatnonzero(sweep.stable[:first])[-1])
    low, high = float(sweep.rates[last]), float(sweep.rates[first])
    return Edge(rate=math.sqrt(low * high), last_stable=low, first_diverged=high)


def lr_sensitivity(sweep: Sweep) -> Estimate:
    """The average loss in nats from training at a random rate of the grid instead of the best, with its interval.

    The mean over the (log-spaced) rates of min(final loss, initial loss), minus its minimum over them
    (Wortsman et al. 2023, arXiv 2309.14322, section 2.2); losses are means over seeds. It depends on the range of the
    grid. The interval resamples whole seeds; with fewer than five seeds it is the range of what each seed gives
    alone. NaN when no rate is good.
    """
    if not sweep.good.any():
        return Estimate()
    capped = np.minimum(sweep.losses, sweep.initial)[sweep.measured]
    means = _mean_over_seeds(capped, np.ones(len(capped), dtype=bool))
    value = float(means.mean() - means.min())
    replicates = _replicates(capped)
    if not replicates.shape[1]:
        return Estimate(value=value)
    low, high = _ends(replicates.mean(axis=0) - replicates.min(axis=0), value)
    return Estimate(value=value, low=low, high=high)


def _vertices(x: Array, losses: Array) -> Array:
    """Vertex of the parabola through the lowest loss and its neighbours: x (R,), losses (R, B) -> (B,).

    Where a neighbour is missing or infinite, x of the lowest loss. Because the middle point is the lowest, the vertex
    lies between the midpoints of the two gaps.
    """
    best = np.argmin(losses, axis=0)
    columns = np.arange(losses.shape[1])
    left, right = np.maximum(best - 1, 0), np.minimum(best + 1, len(x) - 1)
    fits = (left < best) & (best < right)
    fits &= np.isfinite(losses[left, columns]) & np.isfinite(losses[right, columns])
    lowest = losses[best, columns]
    below = np.where(fits, losses[left, columns], lowest) - lowest
    above = np.where(fits, losses[right, columns], lowest) - lowest
    before, after = x[best] - x[left], x[right] - x[best]
    curvature = below * after + above * before
    shift = (below * after**2 - above * before**2) / (2 * np.where(curvature > 0, curvature, 1.0))
    return np.asarray(x[best] + np.where(curvature > 0, shift, 0.0))


def _mean_over_seeds(losses: Array, selected: NDArray[np.bool_]) -> Array:
    """Mean over the seeds with a loss (R, S) -> (R,); infinite for rates that are not `selected`."""
    means = np.full(len(losses), np.inf)
    means[selected] = np.nanmean(losses[selected], axis=1) if selected.any() else np.inf
    return means


def _replicates(losses: Array) -> Array:
    """Replicates of the mean losses: (R, S) -> (R, B), from the seeds with a loss at every rate; B is 0 for one seed.

    10,000 bootstrap means over seeds; with too few seeds for that, the losses of each seed alone.
    """
    complete = losses[:, ~np.isnan(losses).any(axis=0)]
    seeds = complete.shape[1]
    if seeds < 2:
        return complete[:, :0]
    if not has_interval(seeds):
        return complete
    drawn = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    return np.asarray(complete @ (drawn.T / seeds))


def _ends(replicates: Array, value: float) -> tuple[float, float]:
    """The percentile 95% interval of bootstrap replicates; for single seeds their range, widened to hold `value`."""
    if len(replicates) == RESAMPLES:
        return percentile_interval(replicates)
    return min(float(replicates.min()), value), max(float(replicates.max()), value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
