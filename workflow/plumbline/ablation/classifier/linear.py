"""The linear classifier: multinomial logistic regression on the runs' standardised features.

Objective and solver are those of scikit-learn's LogisticRegression, whose import alone would take longer than the fits
of a small trial.
"""

import time
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
    began = time.perf_counter()
    scale = scaling(features, split.train)
    kept = scale.kept
    x = features[:, kept]  # a copy, and the only one
    x -= scale.mean[kept].astype(x.dtype)
    x *= scale.inverse[kept].astype(x.dtype)
    fitted = _fitted(x[split.train], labels[split.train], classes, settings)
    if not fitted.success:
        raise UserError(
            f"ablation.linear.max_iterations: {settings.max_iterations} are too few for the run of seed {seed} "
            f"({fitted.message}); raise it, or lower ablation.linear.inverse_penalty"
        )
    *weights, bias = fitted.x.reshape(classes, -1).T
    predicted = (x @ np.asarray(weights, x.dtype) + bias).argmax(axis=1)
    rows = {side: getattr(split, side) for side in SIDES}
    return run_result(
        classifier="linear",
        seed=seed,
        split=split,
        predictions={side: (labels[index], predicted[index]) for side, index in rows.items()},
        classes=classes,
        best_epoch=fitted.nit,
        epochs=fitted.nit,
        seconds=time.perf_counter() - began,
        feature_width=int(kept.sum()),
        curves=Curves(),
    )


def _fitted(x: NDArray[Any], y: NDArray[Any], classes: int, settings: LinearSettings) -> Any:
    """scipy's result of minimising the mean cross entropy plus ‖weights‖² / (2 C n); n rows x (n, W), classes y (n,).

    Its `x` is (classes, W + 1), flat: the weights and, in the last column, the bias, which is not penalised.
    """
    from scipy.optimize import minimize  # takes half a second to import

    rows, targets = len(x), np.eye(classes)[y]
    decay = 1 / (settings.inverse_penalty * rows)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        both = flat.reshape(classes, -1)
        weights, bias = both[:, :-1], both[:, -1]
        logits = x @ weights.T.astype(x.dtype) + bias
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        totals = shares.sum(axis=1, keepdims=True)
        loss = (np.log(totals).sum() - (logits * targets).sum()) / rows + decay / 2 * (weights**2).sum()
        slope = (shares / totals - targets) / rows
        gradient = np.empty_like(both)
        gradient[:, :-1] = slope.T.astype(x.dtype) @ x + decay * weights
        gradient[:, -1] = slope.sum(axis=0)
        return float(loss), gradient.ravel()

    options = {"maxiter": settings.max_iterations, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps, "maxls": 50}
    start = np.zeros(classes * (x.shape[1] + 1))
    return minimize(objective, start, jac=True, method="L-BFGS-B", options=options)  # type: ignore[call-overload]
