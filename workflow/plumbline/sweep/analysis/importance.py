"""How much of the metric each parameter explains on seeds that the explanation has not seen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.statistics.resampled import corrected_mean
from plumbline.sweep.analysis.frames import points_of
from plumbline.sweep.analysis.ranking import Ranking

TREES = 100
MOST_ROWS = 100_000
"""Predictions for one parameter at most, above which not all pairs of points are tried."""
COLUMNS = ["metric", "parameter", "importance", "importance_low", "importance_high"]


def importance_frame(ranking: Ranking) -> pd.DataFrame:
    """Permutation importance of each parameter (Breiman 2001, Machine Learning 45), the largest first.

    A random forest learns the metric from the parameters on all seeds but one; the importance of a parameter is how
    much R² on that seed falls when its values are shuffled, in expectation over all shuffles. The interval is over the
    seeds left out, corrected for
    their shared training data (Nadeau & Bengio 2003). Empty for fewer than two seeds or points, or where
    fewer than two parameters vary.
    """
    scores = ranking.scores
    values = points_of(ranking.records)
    parameters = [
        name
        for name in next(iter(values.values()), {})
        if len({repr(values[str(point)][name]) for point in scores.index}) > 1
    ]
    if min(*scores.shape, len(parameters)) < 2 or np.ptp(scores.to_numpy()) == 0:
        return pd.DataFrame(columns=COLUMNS)
    from sklearn.ensemble import RandomForestRegressor  # takes a second to import

    table = np.stack([_codes([values[str(point)][name] for point in scores.index]) for name in parameters], axis=1)
    found = []
    for seed in scores.columns:
        others = scores.drop(columns=seed)
        forest = RandomForestRegressor(TREES, random_state=0)
        forest.fit(np.repeat(table, others.shape[1], axis=0), others.to_numpy().ravel())
        found.append(_losses(forest.predict, table, scores[seed].to_numpy()))
    means = [corrected_mean(each, test_over_train=1 / (len(found) - 1)) for each in np.array(found).T]
    rows = [[ranking.metric, name, one.mean, one.low, one.high] for name, one in zip(parameters, means, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("importance", ascending=False, ignore_index=True)


def _losses(predict: Callable[[np.ndarray], np.ndarray], table: np.ndarray, values: np.ndarray) -> list[float]:
    """How much R² falls when a column of `table` (points, parameters) is shuffled, for each column.

    In a random shuffle each row has each row's value equally often, so the expected squared error is the mean over all
    pairs of rows. Of many rows, the pairs are those that are some random distances apart.
    """
    count = len(table)
    distances = np.random.default_rng(0).permutation(count)[: max(1, MOST_ROWS // count)]
    if (spread := np.sum((values - values.mean()) ** 2)) == 0:
        return [0.0] * table.shape[1]  # there is nothing to explain
    error = np.sum((values - predict(table)) ** 2)
    losses = []
    for column in range(table.shape[1]):
        tried = np.repeat(table[np.newaxis], len(distances), axis=0)
        tried[:, :, column] = [np.roll(table[:, column], distance) for distance in distances]
        predicted = predict(tried.reshape(-1, table.shape[1])).reshape(len(distances), count)
        losses.append(float((np.sum((values - predicted) ** 2, axis=1).mean() - error) / spread))
    return losses


def _codes(values: list[Any]) -> np.ndarray:
    """Numbers as they are; other values by their place in the order in which they occur."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return np.array(values, dtype=np.float64)
    known = list(dict.fromkeys(values))
    return np.array([known.index(value) for value in values], dtype=np.float64)
