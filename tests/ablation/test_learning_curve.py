"""The training sets of the learning curve: balanced, each within the next, and the test sides of the trials."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.ablation.classifier.linear import fit_linear
from plumbline.ablation.classifier.splits import rotating_splits
from plumbline.ablation.learning_curve import balanced_order, smaller_splits
from plumbline.ablation.settings import LinearSettings


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
