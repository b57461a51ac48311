"""The result of one run of the classifier."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from plumbline.ablation.classifier.packed import Packed, pack, unpack
from plumbline.ablation.classifier.splits import SIDES, Split
from plumbline.ablation.settings import Classifier
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

    Epochs count from 1; those of `linear` are the solver's iterations, and it has no curves. `best_epoch` is the first
    epoch with the highest validation accuracy; the scores are those of its weights. `seconds` is wall time; a run that
    trained in a stack has an equal share of the stack's. `confusion` counts the test rows, [true class][predicted
    class]; `feature_width` counts the columns that vary.
    `predicted` has the class predicted for each adapter, −1 for those that the run did not test; `train_rows` counts
    the adapters that it trained on.
    """

    classifier: Classifier
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
    train_rows: int
    predicted: Packed | None

    @model_validator(mode="after")
    def _ok_has_scores(self) -> Self:
        found = (self.train, self.validation, self.test, self.best_epoch, self.confusion, self.predicted)
        if self.outcome is Outcome.OK and None in found:
            raise ValueError("outcome is ok, but scores are missing")
        return self

    @property
    def predictions(self) -> NDArray[np.int64]:
        """(adapters,): the class predicted for each, −1 where it was not tested; empty for a run that diverged."""
        return unpack(self.predicted) if self.predicted is not None else np.empty(0, np.int64)


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
    classifier: Classifier,
    seed: int,
    split: Split,
    predictions: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] | None,
    classes: int,
    best_epoch: int | None,
    epochs: int,
    seconds: float,
    feature_width: int,
    curves: Curves,
) -> RunResult:
    """The result of a run from its (labels, predicted) on each side of its split; None for a run that diverged."""
    matrices = {side: confusion_matrix(*pair, classes) for side, pair in (predictions or {}).items()}
    tested = np.full(sum(len(getattr(split, side)) for side in SIDES), -1)
    if predictions:
        tested[split.test] = predictions["test"][1]
    return RunResult(
        classifier=classifier,
        seed=seed,
        outcome=Outcome.DIVERGED if predictions is None else Outcome.OK,
        **{side: scores(matrices[side]) if matrices else None for side in SIDES},
        best_epoch=best_epoch if matrices else None,
        epochs=epochs,
        seconds=seconds,
        feature_width=feature_width,
        curves=curves,
        confusion=matrices["test"].tolist() if matrices else None,
        train_rows=len(split.train),
        predicted=pack(tested) if predictions else None,
    )
