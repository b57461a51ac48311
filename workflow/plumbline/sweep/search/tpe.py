"""The next batch of a search whose earlier results say where to look: Optuna's TPE, asked and told."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from plumbline.core.plan.target import canonical, digest
from plumbline.sweep.search.settings import Dimension
from plumbline.sweep.trial.command import Value

Score = tuple[float, ...] | None
ASKS = 20
"""How often a point of a batch is drawn again when it is one that is there already."""


def next_batch(
    space: Mapping[str, Dimension],
    told: Sequence[tuple[dict[str, Value], Score]],
    *,
    batch: int,
    maximize: Sequence[bool],
    seed: int,
) -> list[dict[str, Value]]:
    """At most `batch` new points of `space`; fewer where it holds no others. The same arguments give the same points.

    told: points with their score in each metric, in order; None for a point of which a trial diverged, timed out or ran
    out of memory. maximize: whether more is better, of each metric. With two, TPE takes the points that few others
    dominate for the good ones (Ozaki et al. 2022, JAIR 73).
    TPE ranks these behind all others, as it does trials that were pruned before their first value. (Optuna ignores
    trials that it is told have failed, and would draw such points again.) The points of one batch know of each other:
    TPE takes those that have no score yet for bad ones, and so keeps away from them (Bergstra et al. 2011, NeurIPS 24).
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(of) for name, of in space.items()}
    study = optuna.create_study(
        directions=["maximize" if more_is_better else "minimize" for more_is_better in maximize],
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    known = {_key(point, space) for point, _ in told}
    for point, score in told:
        if all(of.holds(point[name]) for name, of in space.items()):
            study.add_trial(_frozen(point, score, space, distributions))
    found: list[dict[str, Value]] = []
    for _ in range(batch * ASKS):
        if len(found) == batch:
            break
        trial = study.ask(distributions)
        point = {name: _value(of, trial.params[name]) for name, of in space.items()}
        if (key := _key(point, space)) in known:
            study.tell(trial, state=TrialState.FAIL)  # it is not going to run, so TPE need not keep away from it
        else:
            known.add(key)
            found.append(point)
    return found


def seed_of_round(seed: int, number: int) -> int:
    """The sampler's seed in one round of a search."""
    return int(digest(f"{seed}/{number}")[:8], 16)


def _frozen(
    point: Mapping[str, Value],
    score: Score,
    space: Mapping[str, Dimension],
    distributions: dict[str, BaseDistribution],
) -> FrozenTrial:
    parameters = {name: _told(of, point[name]) for name, of in space.items()}
    state = TrialState.PRUNED if score is None else TrialState.COMPLETE
    return create_trial(state=state, values=score, params=parameters, distributions=distributions)


def _distribution(of: Dimension) -> BaseDistribution:
    if of.choices is not None:
        return CategoricalDistribution(range(len(of.choices)))  # by number, as 1, 1.0 and true are equal
    assert of.low is not None
    assert of.high is not None
    if of.is_integer:
        return IntDistribution(int(of.low), int(of.high), log=of.log)
    return FloatDistribution(of.low, of.high, log=of.log)


def _value(of: Dimension, drawn: Any) -> Value:
    return of.within(drawn) if of.choices is None else of.choices[drawn]


def _told(of: Dimension, value: Value) -> Any:
    if of.choices is None:
        return value
    return next(place for place, one in enumerate(of.choices) if type(one) is type(value) and one == value)


def _key(point: Mapping[str, Value], space: Mapping[str, Dimension]) -> str:
    return canonical({name: point[name] for name in space})
