"""The result of one run of the classifier."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from plumbline.ablation.classifier.splits import SIDES
from plumbline.core.run.record import Outcome


class RecordPart(BaseModel):
    """Base of the objects nested in a trial record: frozen; unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Scores(RecordPart):
    """Accuracy, and the unweighted mean over classes of F1, precision and recall; 0 where one is undefined."""

    accuracy: float
    macro_f1: float
    macro_precision: float
    macro_recall: float


class Curves(RecordPart):
    """One value per epoch. Training loss and accuracy are those of the training steps, with dropout."""

    train_loss: list[float] = []
    train_accuracy: list[float] = []
    validation_accuracy: list[float] = []
    learning_rate: list[float] = []


class RunResult(RecordPart):
    """One run. A run diverges when its training loss is no longer finite; it then has no scores.

    Epochs count from 1. `best_epoch` is the first epoch with the highest validation accuracy; the scores are those of
    its weights. `seconds` is wall time; a run that trained in a stack has an equal share of the stack's.
    `confusion` counts the test rows, [true class][predicted class]; `feature_width` counts the columns that vary.
    """

    seed: int
    outcome: Outcome
    train: Scores | None
    validation: Scores | None
    test: Scores | None
    best_epoch: int | None
    epochs: int
    seconds: float
    feature_width: int
    curves: Curves
    confusion: list[list[int]] | None

    @model_validator(mode="after")
    def _ok_has_scores(self) -> Self:
        found = (self.train, self.validation, self.test, self.best_epoch, self.confusion)
        if self.outcome is Outcome.OK and None in found:
            raise ValueError("outcome is ok, but scores are missing")
        return self


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
    matrices = {side: confusion_matrix(*pair, classes) for side, pair in (predictions or {}).items()}
    return RunResult(
        seed=seed,
        outcome=Outcome.DIVERGED if predictions is None else Outcome.OK,
        **{side: scores(matrices[side]) if matrices else None for side in SIDES},
        best_epoch=best_epoch if matrices else None,
        epochs=epochs,
        seconds=seconds,
        feature_width=feature_width,
        curves=curves,
        confusion=matrices["test"].tolist() if matrices else None,
    )
