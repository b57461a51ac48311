"""The training sets of the learning curve: balanced, each within the next, and the test sides of the trials."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.ablation.classifier.linear import fit_linear
from plumbline.ablation.classifier.splits import rotating_splits
from plumbline.ablation.learning_curve import LearningCurveSpec, balanced_order, learning_curve, smaller_splits
from plumbline.ablation.plan import plan
from plumbline.ablation.settings import AblationSettings, LinearSettings
from plumbline.ablation.split import SplitSpec, split_adapters
from plumbline.core.files import read_json

NO_LAYERS = (
    "the adapters have no layers in text_only: none is cross-attention; their first layer is blocks.0.attn1.to_q"
)


@given(rows=st.integers(10, 200), classes=st.integers(2, 6), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_every_start_of_the_order_has_as_many_of_each_class_as_there_are(rows, classes, seed):
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    order = balanced_order(labels, seed)
    assert sorted(order) == list(range(rows))
    there = np.bincount(labels, minlength=classes)
    for size in (1, rows // 3, rows // 2, rows):
        taken = np.bincount(labels[order[:size]], minlength=classes)
        left = taken < there
        assert not left.any() or taken.max() - taken[left].min() <= 1


def test_smaller_training_sets_are_nested_and_test_the_same_rows():
    labels = np.arange(200) % 4
    (whole, *_) = rotating_splits(labels, np.arange(200), runs=5, seed=0)
    found = dict(smaller_splits(whole, labels, [80, 20, 40, 140, 999], seed=1))
    assert list(found) == [20, 40, 80]  # 140 are all there are
    for size, small in found.items():
        assert len(small.train) == size
        assert (small.test == whole.test).all()
        assert sorted(np.concatenate([small.train, small.validation, small.test])) == list(range(200))
        assert set(small.train) <= set(whole.train)
    assert set(found[20].train) < set(found[40].train) < set(found[80].train)


def test_more_training_adapters_make_a_classifier_of_noisy_features_better():
    random, labels = np.random.default_rng(0), np.arange(300) % 3
    table = (np.eye(3)[labels] @ random.standard_normal((3, 40)) + 3 * random.standard_normal((300, 40))).astype(
        np.float32
    )
    splits = rotating_splits(labels, np.arange(300), runs=5, seed=0)
    accuracy: dict[int, list[float]] = {12: [], 150: []}
    for run, whole in enumerate(splits):
        for size, small in smaller_splits(whole, labels, list(accuracy), seed=run):
            (result,) = fit_linear(table, labels, [small], 3, LinearSettings(), [run])
            accuracy[size].append(result.test.accuracy)
    assert np.mean(accuracy[150]) > np.mean(accuracy[12]) + 0.1


def found(inputs: tuple[Path, Path], folder: Path, layers: str, split: str = "resampled") -> dict[str, Any]:
    """What the stage finds for one representation of the small store, with training sets of 10 and of 999."""
    manifest, features = inputs
    file = folder / "product" / features.name
    file.parent.mkdir()
    file.write_bytes(features.read_bytes())
    drawn = {"split": split, "split_by_images": True, "runs": 2, "seed": 1}
    split_adapters(SplitSpec(code="", inputs="", **drawn), manifest, folder / "splits")
    curves = [{"view": "product", "representation": "my_lab:stats", "parts": ["my_lab:stats"]}]
    fields = {"curves": curves, "layers": layers, "sizes": [10, 999], "linear": {}, "seed": 1}
    spec = LearningCurveSpec(code="", inputs="", **fields)
    learning_curve(spec, manifest, folder / "splits", [file], folder / "curve.json")
    return read_json(folder / "curve.json")


def test_curve_has_a_row_per_run_and_size_below_that_of_the_training_side(inputs, tmp_path):
    result = found(inputs, tmp_path, "all_layers")
    assert [(row["run"], row["adapters"]) for row in result["rows"]] == [(0, 10), (1, 10)]
    assert [curve["skipped"] for curve in result["curves"]] == [None]
    assert result["test_over_train"] == pytest.approx(2 / 7, abs=0.02)


def test_runs_that_test_the_same_rows_are_not_corrected_for_shared_test_rows_as_in_the_trials(inputs, tmp_path):
    assert found(inputs, tmp_path, "all_layers", split="fixed")["test_over_train"] == 0


def test_curve_on_layers_that_the_adapters_lack_is_skipped_with_its_reason(inputs, tmp_path):
    result = found(inputs, tmp_path, "text_only")
    assert result["rows"] == []
    assert [curve["skipped"] for curve in result["curves"]] == [NO_LAYERS]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 6),
        ({"learning_curve": []}, 6),
        ({"classifier": ["mlp"]}, 0),
        ({"representations": {"product": ["tokens"]}}, 0),
    ],
)
def test_curves_are_planned_for_features_that_the_linear_classifier_reads(changes, expected):
    targets = plan(AblationSettings(**changes), 0, {}, "cpu")
    (target,) = (one for one in targets if one.stage == "learning_curve")
    assert len(target.settings["curves"]) == expected
