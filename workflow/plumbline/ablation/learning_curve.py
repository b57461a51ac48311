"""Stage `ablation.learning_curve`: accuracy of the linear classifier against the number of training adapters."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.ablation.classifier.linear import fit_linear
from plumbline.ablation.classifier.splits import Split, ratio_of_sides, read_splits
from plumbline.ablation.data.feature_file import read_features
from plumbline.ablation.data.store import AdapterStore, why_no_layers
from plumbline.ablation.settings import LinearSettings, View
from plumbline.core.files import write_json
from plumbline.core.plan.target import Spec
from plumbline.core.registry import short_name
from plumbline.core.run.device import memory_errors
from plumbline.core.run.progress import track
from plumbline.core.run.stage import stage
from plumbline.core.settings import Settings

log = logging.getLogger("plumbline")


class Curve(Settings):
    """A representation that has a curve."""

    view: View
    representation: str
    parts: list[str]


class LearningCurveSpec(Spec):
    """What decides the curves."""

    curves: list[Curve]
    layers: str
    sizes: list[int]
    linear: LinearSettings
    seed: int


@stage
def learning_curve(spec: LearningCurveSpec, adapters: Path, splits: Path, features: list[Path], output: Path) -> None:
    """Writes a row per representation, number of training adapters and run to `output`.

    Every run tests on the side that it tests on in the trials, whatever it is trained on. Numbers that are not below
    those of a run's training side are left out. A curve without layers or memory is skipped, as its trial is, and
    says why. adapters: the store's manifest; features: the feature files of all curves.
    """
    store = AdapterStore(adapters.parent)
    drawn = read_splits(splits, store.rows)
    files = {(path.parent.name, path.stem): path for path in features}
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for curve in track(spec.curves, len(spec.curves), "curves"):
        place = {"view": curve.view, "layers": spec.layers, "representation": short_name(curve.representation)}
        paths, skipped = [files[curve.view, short_name(part)] for part in curve.parts], None
        try:
            with memory_errors():
                table, layers = read_features(paths, spec.layers)
                if layers:
                    rows += [{**place, **point} for point in _points(spec, table, store, drawn)]
                else:
                    skipped = why_no_layers(store, curve.view, spec.layers)
        except MemoryError as error:
            skipped = f"out of memory ({error})"
        if skipped:
            log.warning("%s/%s/%s: no learning curve: %s", *place.values(), skipped)
        curves.append({**place, "skipped": skipped})
    ratio = ratio_of_sides([one.test for one in drawn], [len(one.train) for one in drawn])
    write_json(output, {"test_over_train": ratio, "curves": curves, "rows": rows})


def _points(
    spec: LearningCurveSpec, table: NDArray[Any], store: AdapterStore, splits: list[Split]
) -> list[dict[str, Any]]:
    """The test accuracy of every run, trained on each of the sizes."""
    points = []
    for run, whole in enumerate(splits):
        for size, small in smaller_splits(whole, store.labels, spec.sizes, spec.seed * 1000 + run):
            (result,) = fit_linear(table, store.labels, [small], len(store.classes), spec.linear, [run])
            assert result.test is not None  # the fit is convex: it ends, or is an error
            points.append({"adapters": size, "run": run, "test_accuracy": result.test.accuracy})
    return points


def smaller_splits(whole: Split, labels: NDArray[Any], sizes: list[int], seed: int) -> Iterator[tuple[int, Split]]:
    """The split with only so many training rows, each set within the next; the others validate, to no effect."""
    order = balanced_order(labels[whole.train], seed)
    for size in sorted(sizes):
        if size < len(order):
            train, spare = np.sort(whole.train[order[:size]]), whole.train[order[size:]]
            yield size, Split(train=train, validation=np.sort(np.append(whole.validation, spare)), test=whole.test)


def balanced_order(labels: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """A random order of the rows in which the classes of `labels` (N,) take turns, so that every start is balanced."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels[shuffled] == label)
        turn[own] = np.arange(len(own))
    return np.asarray(shuffled[np.argsort(turn, kind="stable")])


if __name__ == "__main__":
    learning_curve.main()
