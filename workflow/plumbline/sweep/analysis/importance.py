"""How much of the metric each parameter explains on seeds that the explanation has not seen."""

from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.statistics.resampled import corrected_mean
from plumbline.sweep.analysis.frames import points_of
from plumbline.sweep.analysis.ranking import Ranking

TREES, REPEATS = 100, 10
COLUMNS = ["parameter", "importance", "importance_low", "importance_high"]


def importance_frame(ranking: Ranking) -> pd.DataFrame:
    """Permutation importance of each parameter (Breiman 2001, Machine Learning 45), the largest first.

    A random forest learns the metric from the parameters on all seeds but one; the importance of a parameter is how
    much R² on that seed falls when its values are shuffled. The interval is over the seeds left out, corrected for
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
    from sklearn.inspection import permutation_importance

    table = np.stack([_codes([values[str(point)][name] for point in scores.index]) for name in parameters], axis=1)
    found = []
    for seed in scores.columns:
        others = scores.drop(columns=seed)
        forest = RandomForestRegressor(TREES, random_state=0)
        forest.fit(np.repeat(table, others.shape[1], axis=0), others.to_numpy().ravel())
        left = permutation_importance(forest, table, scores[seed], n_repeats=REPEATS, random_state=0, scoring="r2")
        found.append(left.importances_mean)
    means = [corrected_mean(each, test_over_train=1 / (len(found) - 1)) for each in np.array(found).T]
    rows = [
        {"parameter": name, "importance": one.mean, "importance_low": one.low, "importance_high": one.high}
        for name, one in zip(parameters, means, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("importance", ascending=False, ignore_index=True)


def _codes(values: list[Any]) -> np.ndarray:
    """Numbers as they are; other values by their place in the order in which they occur."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return np.array(values, dtype=np.float64)
    known = list(dict.fromkeys(values))
    return np.array([known.index(value) for value in values], dtype=np.float64)
