"""What a run of the classifier found."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.ablation.classifier.splits import SIDES


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracy, and the unweighted mean over classes of F1, precision and recall; 0 where one is undefined."""

    accuracy: float
    macro_f1: float
    macro_precision: float
    macro_recall: float


@dataclass(kw_only=True)
class Curves:
    """One value per epoch. Training loss and accuracy are those of the training steps, with dropout."""

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One run. `outcome` is "ok", or "diverged" when the training loss stopped being finite: then no scores.

    Epochs count from 1. `best_epoch` is the first of the highest validation accuracy; the scores are of its weights.
    `seconds` is wall time; of a stacked fit, an equal share of the whole stack's.
    `confusion` counts the test rows, [true class][predicted class]; `feature_width` the columns kept.
    """

    seed: int
    outcome: str
    train: Scores | None
    validation: Scores | None
    test: Scores | None
    best_epoch: int | None
    epochs: int
    seconds: float
    feature_width: int
    curves: Curves
    confusion: list[list[int]] | None

    def to_json(self) -> dict[str, Any]:
        """The run as a record keeps it: only dicts, lists, strings, finite numbers and None."""
        return asdict(self)


def scores(confusion: NDArray[np.int64]) -> Scores:
    """The scores of a confusion matrix (C, C), rows true, columns predicted."""
    hits = np.diag(confusion).astype(np.float64)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(actual, 1)
    f1 = 2 * hits / np.maximum(predicted + actual, 1)
    return Scores(
        accuracy=float(hits.sum() / confusion.sum()),
        macro_f1=float(f1.mean()),
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
    )


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts (C, C), rows true, columns predicted."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def run_result(
    *,
    seed: int,
    predictions: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] | None,
    classes: int,
    best_epoch: int | None,
    epochs: int,
    seconds: float,
    feature_width: int,
    curves: Curves,
) -> RunResult:
    """The result of a run from its (labels, predicted) on each side; None for a run that diverged."""
    matrices = {} if predictions is None else {
        side: confusion_matrix(*predictions[side], classes) for side in SIDES
    }  # fmt: skip
    return RunResult(
        seed=seed,
        outcome="diverged" if predictions is None else "ok",
        **{side: scores(matrices[side]) if matrices else None for side in SIDES},
        best_epoch=best_epoch if matrices else None,
        epochs=epochs,
        seconds=seconds,
        feature_width=feature_width,
        curves=curves,
        confusion=matrices["test"].tolist() if matrices else None,
    )
