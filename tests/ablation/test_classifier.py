"""The stacked classifier gives each run what it would have got alone in ordinary torch modules."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.preprocessing import StandardScaler

from plumbline.ablation.classifier import stacked
from plumbline.ablation.classifier.draws import batch_rows, draw_masks, generator_of
from plumbline.ablation.classifier.result import confusion_matrix, scores
from plumbline.ablation.classifier.single import fit_single
from plumbline.ablation.classifier.splits import Split, split
from plumbline.ablation.classifier.stack import parts
from plumbline.ablation.classifier.stacked import RunState, StackedTrainer, fit_stacked
from plumbline.ablation.classifier.standardise import StandardisedRows, scaling
from plumbline.ablation.settings import ClassifierSettings
from plumbline.core.errors import UserError

CPU = torch.device("cpu")
SMALL = ClassifierSettings(hidden=16, layers=2, max_epochs=30, patience=30, plateau_patience=3)
CLASSES = 4


def data(rows=150, width=12, dtype=np.float64, seed=0, distance=0.8):
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES
    centres = random.normal(size=(CLASSES, width))
    return (distance * centres[labels] + random.normal(size=(rows, width))).astype(dtype), labels


def random_splits(labels, runs=3):
    return [split(labels, np.arange(len(labels)), seed=seed) for seed in range(runs)]


def ragged_splits(labels):
    """Training sides of 109, 97 (a last batch of one row), 64, 110 and 129 rows: one, two and three batches."""
    splits = []
    for seed, size in enumerate((109, 97, 64, 110, 129)):
        order = np.random.default_rng(seed).permutation(len(labels))
        rows = np.split(order, [size, size + (len(labels) - size) // 2])
        splits.append(Split(**dict(zip(("train", "validation", "test"), map(np.sort, rows), strict=True))))
    return splits


def both(features, labels, splits, settings):
    seeds = list(range(10, 10 + len(splits)))
    together = fit_stacked(features, labels, splits, CLASSES, settings, seeds, CPU)
    alone = [
        fit_single(features, labels, one, CLASSES, settings, seed, CPU)[0]
        for one, seed in zip(splits, seeds, strict=True)
    ]
    return together, alone


def assert_same(together, alone, tolerance):
    for a, b in zip(together, alone, strict=True):
        assert (a.outcome, a.best_epoch, a.epochs, a.seed) == (b.outcome, b.best_epoch, b.epochs, b.seed)
        assert a.confusion == b.confusion
        assert (a.train, a.validation, a.test) == (b.train, b.validation, b.test)
        assert a.feature_width == b.feature_width
        for name, curve in vars(a.curves).items():
            np.testing.assert_allclose(curve, getattr(b.curves, name), atol=tolerance, rtol=0, err_msg=name)


def without_seconds(results):
    return [result.model_copy(update={"seconds": 0.0}) for result in results]


def test_stacked_runs_equal_single_runs_in_float64():
    features, labels = data()
    together, alone = both(features, labels, random_splits(labels), SMALL)
    assert_same(together, alone, 1e-9)
    assert len({result.best_epoch for result in together}) > 1


def test_stacked_weights_equal_single_weights_in_float64():
    features, labels = data()
    splits = random_splits(labels)
    trainer = StackedTrainer(features, labels, splits, CLASSES, SMALL, [0, 1, 2], CPU)
    while trainer.active:
        trainer.advance()
    best = parts(trainer.best_flat, trainer.stack.shape)
    for run in range(3):
        _, network = fit_single(features, labels, splits[run], CLASSES, SMALL, run, CPU)
        expected = [layer.weight for layer in network.hidden] + [network.output.weight]
        for stacked_weight, weight in zip(best.weights, expected, strict=True):
            torch.testing.assert_close(stacked_weight[run], weight.detach(), atol=1e-9, rtol=0)
        torch.testing.assert_close(best.bias[run], network.output.bias.detach(), atol=1e-9, rtol=0)
        for layer, norm in enumerate(network.norms):
            torch.testing.assert_close(best.gain[run, layer], norm.weight.detach(), atol=1e-9, rtol=0)
            torch.testing.assert_close(best.shift[run, layer], norm.bias.detach(), atol=1e-9, rtol=0)
            torch.testing.assert_close(trainer.best_mean[run, layer], norm.running_mean, atol=1e-9, rtol=0)
            torch.testing.assert_close(trainer.best_variance[run, layer], norm.running_var, atol=1e-9, rtol=0)


def test_stacked_runs_equal_single_runs_in_float32():
    features, labels = data(dtype=np.float32)
    settings = SMALL.model_copy(update={"batch_size": 32})
    assert_same(*both(features, labels, random_splits(labels), settings), 1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_runs_of_different_sizes_and_ends_equal_single_runs(dropout):
    features, labels = data()
    settings = SMALL.model_copy(update={"patience": 5, "batch_size": 32, "dropout": dropout})
    together, alone = both(features, labels, ragged_splits(labels), settings)
    assert_same(together, alone, 1e-9)
    assert len({result.epochs for result in together}) > 1


def test_epochs_of_several_blocks_of_masks_equal_single_runs():
    features, labels = data()
    settings = SMALL.model_copy(update={"batch_size": 4, "max_epochs": 4})
    assert_same(*both(features, labels, ragged_splits(labels), settings), 1e-9)


def test_a_column_constant_in_one_run_only_is_dropped_from_that_run_only():
    features, labels = data()
    splits = random_splits(labels)
    features[:, 3] = 5.0
    elsewhere = np.setdiff1d(splits[0].test, splits[1].test)[0]
    features[elsewhere, 3] = 6.0
    features[:, 7] = 0.1
    together, alone = both(features, labels, splits[:2], SMALL)
    assert [result.feature_width for result in together] == [10, 11]
    assert_same(together, alone, 1e-9)


def test_a_lone_last_row_is_left_out_of_the_epoch():
    assert [batch_rows(129, first, 64) for first in (0, 64, 128)] == [64, 64, 0]
    assert batch_rows(130, 128, 64) == 2


def test_scores_are_those_of_the_best_epochs_weights_not_the_last_ones():
    features, labels = data(rows=100, width=30)
    settings = SMALL.model_copy(update={"max_epochs": 25, "dropout": 0.2})
    result, network = fit_single(features, labels, random_splits(labels)[0], CLASSES, settings, 0, CPU)
    [together] = fit_stacked(features, labels, random_splits(labels)[:1], CLASSES, settings, [0], CPU)
    for one in (result, together):
        best = max(one.curves.validation_accuracy)
        assert one.curves.validation_accuracy.index(best) == one.best_epoch - 1 < one.epochs - 1
        assert one.validation.accuracy == pytest.approx(best)
    # a fit that ends at the best epoch has the same weights, hence the same scores on every side
    cut = settings.model_copy(update={"max_epochs": result.best_epoch})
    shorter, short_network = fit_single(features, labels, random_splits(labels)[0], CLASSES, cut, 0, CPU)
    assert (shorter.train, shorter.test) == (result.train, result.test)
    for a, b in zip(network.parameters(), short_network.parameters(), strict=True):
        assert torch.equal(a, b)


@hypothesis_settings(max_examples=30, deadline=None)
@given(accuracies=st.lists(st.sampled_from([0.1, 0.5, 0.50001, 0.6, 0.9]), min_size=1, max_size=60))
def test_learning_rates_are_torchs_plateau_schedule(accuracies):
    settings = ClassifierSettings(plateau_patience=2, patience=100)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=2)
    run = RunState(seed=0, learning_rate=settings.learning_rate)
    for accuracy in accuracies:
        run.finish_epoch(1.0, 0.5, accuracy, settings)
        schedule.step(accuracy)
        assert run.learning_rate == optimizer.param_groups[0]["lr"]


def test_a_run_stops_after_patience_epochs_without_a_better_validation_accuracy():
    features, labels = data()
    settings = SMALL.model_copy(update={"patience": 4, "max_epochs": 200})
    for result in fit_stacked(features, labels, random_splits(labels), CLASSES, settings, [0, 1, 2], CPU):
        assert result.epochs == result.best_epoch + 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_killed_training_resumes_to_the_same_bits(tmp_path, dtype):
    features, labels = data(dtype=dtype)
    splits = ragged_splits(labels)
    settings = SMALL.model_copy(update={"patience": 6, "batch_size": 32})
    seeds = [3, 4, 5, 6, 7]
    uninterrupted = fit_stacked(features, labels, splits, CLASSES, settings, seeds, CPU)
    runs_left = []

    def kill(epoch, active):
        runs_left.append(active)
        if epoch in (5, 11, 12):
            raise KeyboardInterrupt

    place = tmp_path / "fit.pt"
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            fit_stacked(
                features, labels, splits, CLASSES, settings, seeds, CPU, kill, checkpoint=place, checkpoint_seconds=0
            )
        assert place.exists()
    assert 0 < runs_left[-1] < 5, "the kill should fall after some runs have left the stack"
    resumed = fit_stacked(features, labels, splits, CLASSES, settings, seeds, CPU, checkpoint=place)
    assert without_seconds(resumed) == without_seconds(uninterrupted)


def test_a_checkpoint_of_other_settings_is_ignored(tmp_path, caplog):
    features, labels = data()
    splits, place = random_splits(labels), tmp_path / "fit.pt"

    def kill(epoch, active):
        raise KeyboardInterrupt

    other = SMALL.model_copy(update={"learning_rate": 0.1})
    with pytest.raises(KeyboardInterrupt):
        fit_stacked(
            features, labels, splits, CLASSES, other, [0, 1, 2], CPU, kill, checkpoint=place, checkpoint_seconds=0
        )
    fresh = fit_stacked(features, labels, splits, CLASSES, SMALL, [0, 1, 2], CPU)
    again = fit_stacked(features, labels, splits, CLASSES, SMALL, [0, 1, 2], CPU, checkpoint=place)
    assert without_seconds(again) == without_seconds(fresh)
    assert "belongs to another spec" in caplog.text


def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path):
    features, labels = data()
    place = tmp_path / "fit.pt"
    place.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"fit\.pt: is not a checkpoint"):
        fit_stacked(features, labels, random_splits(labels), CLASSES, SMALL, [0, 1, 2], CPU, checkpoint=place)


def test_a_diverged_run_is_recorded_and_the_others_continue(monkeypatch):
    features, labels = data()
    splits = random_splits(labels)
    uninterrupted = fit_stacked(features, labels, splits, CLASSES, SMALL, [0, 1, 2], CPU)
    advance = StackedTrainer.advance

    def spoil(trainer):
        if trainer.epoch == 4:
            trainer.stack.flat[1] = float("inf")
        advance(trainer)

    monkeypatch.setattr(stacked.StackedTrainer, "advance", spoil)
    results = fit_stacked(features, labels, splits, CLASSES, SMALL, [0, 1, 2], CPU)
    assert [result.outcome for result in results] == ["ok", "diverged", "ok"]
    assert (results[1].epochs, results[1].test, results[1].confusion) == (4, None, None)
    json.dumps(results[1].model_dump(mode="json"), allow_nan=False)
    for kept in (0, 2):
        assert_same([results[kept]], [uninterrupted[kept]], 1e-12)


def test_standardised_rows_equal_sklearns_scaler_and_do_not_depend_on_where_they_are_kept():
    features, labels = data(dtype=np.float32)
    features = features * 100 + 1000
    splits = random_splits(labels)
    resident = StandardisedRows(features, splits, CPU)
    by_batch = StandardisedRows(features, splits, CPU, resident_bytes=0)
    runs, rows = torch.arange(3), torch.arange(150).expand(3, 150)
    values = resident.batch(runs, resident.locate(runs, rows)).clone()
    assert torch.equal(values, by_batch.batch(runs, by_batch.locate(runs, rows)))
    for run, one in enumerate(splits):
        expected = StandardScaler().fit(features[one.train].astype(np.float64)).transform(features)
        np.testing.assert_allclose(values[run], expected, atol=2e-5)


def test_runs_of_one_split_share_one_table():
    features, labels = data(dtype=np.float32)
    shared = StandardisedRows(features, random_splits(labels)[:1] * 3, CPU)
    assert shared._table.shape == features.shape


@hypothesis_settings(max_examples=50, deadline=None)
@given(value=st.floats(-1e6, 1e6, width=32), rounding=st.floats(-1, 1), outlier=st.floats(-1e6, 1e6, width=32))
def test_a_column_of_rounding_noise_is_constant_whatever_the_other_rows_hold(value, rounding, outlier):
    column = np.full(20, value, np.float32)
    column[3] *= np.float32(1 + 1e-7 * rounding)
    column[19] = outlier
    scale = scaling(np.stack([column, np.arange(20, dtype=np.float32)], axis=1), np.arange(19))
    assert scale.kept.tolist() == [False, True]


def test_features_that_are_all_constant_are_refused():
    with pytest.raises(UserError, match="all 5 columns are constant"):
        scaling(np.ones((20, 5), np.float32), np.arange(10))


def test_a_value_that_is_not_finite_is_named():
    features, labels = data()
    features[17, 5] = np.nan
    with pytest.raises(UserError, match="row 17, column 5 is nan"):
        fit_stacked(features, labels, random_splits(labels), CLASSES, SMALL, [0, 1, 2], CPU)


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=5, max_size=50),
)
def test_scores_equal_sklearns(pairs):
    labels, predicted = np.array(pairs).T
    own = scores(confusion_matrix(labels, predicted, 5))
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=range(5), average="macro", zero_division=0
    )
    expected = [accuracy_score(labels, predicted), f1, precision, recall]
    np.testing.assert_allclose([own.accuracy, own.macro_f1, own.macro_precision, own.macro_recall], expected)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_masks_drop_the_share_asked_for_and_keep_the_mean(dropout):
    masks = torch.empty(200_001)
    draw_masks(masks, ClassifierSettings(dropout=dropout), generator_of(0, CPU))
    assert sorted(masks.unique().tolist()) == pytest.approx([0.0, 1 / (1 - dropout)])
    share = (masks == 0).double().mean().item()
    assert abs(share - dropout) < 5 * (dropout * (1 - dropout) / 200_001) ** 0.5


def test_a_network_that_separates_the_classes_is_found():
    features, labels = data(rows=300, distance=2)
    settings = ClassifierSettings(hidden=32, max_epochs=40)
    for result in fit_stacked(features, labels, random_splits(labels), CLASSES, settings, [0, 1, 2], CPU):
        assert result.test.accuracy > 0.9
        assert result.curves.train_loss[-1] < result.curves.train_loss[0]


@pytest.mark.parametrize(("key", "value"), [("hidden", 0), ("batch_size", 1), ("dropout", 1.0)])
def test_settings_that_cannot_train_are_refused(key, value):
    with pytest.raises(ValidationError, match=key):
        ClassifierSettings(**{key: value})
