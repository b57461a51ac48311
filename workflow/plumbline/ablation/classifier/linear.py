"""The linear classifier: multinomial logistic regression on the runs' standardised features."""

import time
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.ablation.classifier.result import Curves, RunResult, run_result
from plumbline.ablation.classifier.splits import SIDES, Split
from plumbline.ablation.classifier.standardise import check_finite, scaling
from plumbline.ablation.settings import LinearSettings
from plumbline.core.errors import UserError


def fit_linear(
    features: NDArray[Any],
    labels: NDArray[Any],
    splits: Iterable[Split],
    classes: int,
    settings: LinearSettings,
    seeds: Iterable[int],
) -> list[RunResult]:
    """One run for each split. The fit is convex and has no random part: a seed only names its run.

    features: (N, W), standardised by each run's training rows as for the perceptron; labels: (N,) in 0 … classes − 1.
    Validation rows are scored, and decide nothing. Raises UserError when no column varies over the training rows, a
    value is not finite, or a fit does not converge.
    """
    check_finite(features)
    pairs = zip(splits, seeds, strict=True)
    return [_fit(features, labels, split, classes, settings, seed) for split, seed in pairs]


def _fit(
    features: NDArray[Any], labels: NDArray[Any], split: Split, classes: int, settings: LinearSettings, seed: int
) -> RunResult:
    from sklearn.exceptions import ConvergenceWarning  # imports take a second, which a trial without it need not pay
    from sklearn.linear_model import LogisticRegression

    began = time.perf_counter()
    scale = scaling(features, split.train)
    kept = scale.kept
    x = features[:, kept]  # a copy, and the only one
    x -= scale.mean[kept].astype(x.dtype)
    x *= scale.inverse[kept].astype(x.dtype)
    model = LogisticRegression(C=settings.inverse_penalty, max_iter=settings.max_iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(x[split.train], labels[split.train])
        except ConvergenceWarning:
            raise UserError(
                f"ablation.linear.max_iterations: {settings.max_iterations} are too few for the run of seed {seed}; "
                "raise it, or lower ablation.linear.inverse_penalty"
            ) from None
    rows = {side: getattr(split, side) for side in SIDES}
    iterations = int(np.max(model.n_iter_))
    return run_result(
        classifier="linear",
        seed=seed,
        split=split,
        predictions={side: (labels[index], model.predict(x[index])) for side, index in rows.items()},
        classes=classes,
        best_epoch=iterations,
        epochs=iterations,
        seconds=time.perf_counter() - began,
        feature_width=int(kept.sum()),
        curves=Curves(),
    )
