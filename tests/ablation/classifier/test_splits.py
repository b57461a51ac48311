"""Splits keep groups whole, classes everywhere and shares near what was asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from plumbline.ablation.classifier.splits import SIDES, Split, fixed_split, read_splits, split, write_splits
from plumbline.core.errors import UserError


def sides(made: Split) -> list[np.ndarray]:
    return [getattr(made, side) for side in SIDES]


def folds(per_cell: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Ten folds of ten classes, `per_cell` rows of each class in each fold."""
    labels, groups, _ = np.indices((10, 10, per_cell)).reshape(3, -1)
    return labels, groups


def test_ten_balanced_folds_are_dealt_seven_one_two():
    labels, groups = folds()
    for seed in range(5):
        made = split(labels, groups, seed=seed)
        assert [len(np.unique(groups[side])) for side in sides(made)] == [7, 1, 2]
        assert all((np.bincount(labels[side]) == 0.1 * len(side)).all() for side in sides(made))


def test_seeds_draw_different_splits_and_one_seed_the_same():
    labels, groups = folds()
    for own in (groups, np.arange(len(labels))):
        made = [tuple(split(labels, own, seed=seed).test) for seed in range(8)]
        assert len(set(made)) > 4
        assert tuple(split(labels, own, seed=3).test) == made[3]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(300, 600), groups=st.integers(60, 150))
def test_no_group_is_on_two_sides_and_no_row_is_lost(seed, rows, groups):
    random = np.random.default_rng(seed)
    labels, own = random.integers(0, 3, rows), random.integers(0, groups, rows)
    made = split(labels, own, seed=seed)
    assert np.array_equal(np.sort(np.concatenate(sides(made))), np.arange(rows))
    owners = [set(own[side]) for side in sides(made)]
    assert sum(map(len, owners)) == len(set.union(*owners))
    shares = np.array([len(side) / rows for side in sides(made)])
    assert np.abs(shares - [0.7, 0.1, 0.2]).max() < 0.03


def test_rows_that_are_their_own_group_are_stratified_to_the_row():
    labels = np.repeat(np.arange(4), [100, 200, 300, 400])
    made = split(labels, np.arange(1000) + 7, seed=1)
    counts = [np.bincount(labels[side]).tolist() for side in sides(made)]
    assert counts == [[70, 140, 210, 280], [10, 20, 30, 40], [20, 40, 60, 80]]


def test_the_fixed_split_is_sklearns_two_steps_with_seed_42():
    labels = np.random.default_rng(0).integers(0, 10, 500)
    rest, test = train_test_split(np.arange(500), test_size=0.2, stratify=labels, random_state=42)
    train, validation = train_test_split(rest, test_size=0.125, stratify=labels[rest], random_state=42)
    for made, expected in zip(sides(fixed_split(labels)), (train, validation, test), strict=True):
        assert np.array_equal(made, np.sort(expected))


def test_classes_that_own_their_groups_are_on_every_side():
    """Ten classes of seven groups each, as where adapters share images with their own class alone."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(70), random.integers(1, 6, 70))
    labels = groups // 7
    made = [split(labels, groups, seed=seed) for seed in range(5)]
    assert all(len(np.unique(labels[side])) == 10 for one in made for side in sides(one))


def test_half_of_the_rows_in_one_group_are_trained_on():
    labels = np.random.default_rng(1).integers(0, 3, 400)
    groups = np.where(np.arange(400) < 200, 0, np.arange(400))
    for seed in range(3):
        made = split(labels, groups, seed=seed)
        assert 0 in made.train
        assert np.abs(np.array([len(side) / 400 for side in sides(made)]) - [0.7, 0.1, 0.2]).max() < 0.1


def test_a_class_with_fewer_groups_than_folds_is_no_warning(recwarn):
    labels = np.concatenate([np.random.default_rng(2).integers(0, 5, 400), np.full(6, 5)])
    groups = np.concatenate([np.random.default_rng(3).integers(0, 60, 400), np.repeat([60, 61, 62], 2)])
    made = split(labels, groups, seed=0)
    assert all(5 in labels[side] for side in sides(made))
    assert not recwarn.list


def test_a_giant_group_is_refused_with_its_size_and_the_fix():
    labels = np.tile(np.arange(2), 100)
    groups = np.where(np.arange(200) < 190, 0, np.arange(200))
    with pytest.raises(UserError, match=r"the largest with 190 of 200 rows.*split_by_images: false"):
        split(labels, groups, seed=0)


def test_a_class_that_lies_in_one_group_is_refused():
    labels, groups = folds()
    labels = np.where(groups == 0, 10, labels)
    with pytest.raises(UserError, match="hold none of class 10"):
        split(labels, groups, seed=0)


def test_a_class_of_one_row_is_refused():
    labels = np.array([0] * 99 + [1])
    with pytest.raises(UserError, match="1 in the smallest class"):
        split(labels, np.arange(100), seed=0)


def test_a_class_of_two_rows_is_refused():
    labels = np.array([0] * 98 + [1] * 2)
    with pytest.raises(UserError, match=r"hold none of class 1 \(2 rows in all\)"):
        split(labels, np.arange(100), seed=0)


def test_splits_come_back_from_their_file(tmp_path):
    labels, groups = folds()
    written = [split(labels, groups, seed=seed) for seed in range(3)]
    write_splits(tmp_path / "splits.safetensors", written)
    read = read_splits(tmp_path / "splits.safetensors", len(labels))
    for one, other in zip(written, read, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(sides(one), sides(other), strict=True))


def test_splits_of_other_adapters_are_refused(tmp_path):
    write_splits(tmp_path / "splits.safetensors", [split(*folds(), seed=0)])
    with pytest.raises(UserError, match=r"splits\.safetensors: splits 500 adapters, there are 400; delete it"):
        read_splits(tmp_path / "splits.safetensors", 400)
