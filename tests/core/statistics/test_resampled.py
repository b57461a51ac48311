import numpy as np
import pytest
from scipy import stats

from plumbline.core.statistics.resampled import corrected_interval, corrected_mean


def test_independent_values_have_the_ordinary_t_interval_and_test() -> None:
    values = np.random.default_rng(0).normal(0.2, 1.0, 12)
    found, theirs = corrected_mean(values, test_over_train=0.0), stats.ttest_1samp(values, 0.0)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.p_value == pytest.approx(theirs.pvalue)


def test_ten_times_ten_folds_are_corrected_by_bouckaert_and_franks_formula() -> None:
    """Their statistic, term by term: mean / sqrt((1 / (k r) + 1 / (k - 1)) s²) with k r - 1 degrees of freedom."""
    values = np.random.default_rng(1).normal(0.01, 0.03, 100)
    square = sum((value - values.mean()) ** 2 for value in values) / 99
    t = values.mean() / ((1 / 100 + 1 / 9) * square) ** 0.5
    found = corrected_mean(values, test_over_train=1 / 9)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(t), 99))
    assert (found.low <= 0 <= found.high) == (found.p_value >= 0.05)


def test_interval_over_splits_of_one_dataset_holds_the_truth_where_the_plain_one_does_not() -> None:
    """A learner that predicts the mean of 80 training rows, its squared error on the other 20 of 100; 15 splits.

    Its expected error is σ² (1 + 1 / 80) by theory.
    """
    rng, truth = np.random.default_rng(2), 1 + 1 / 80
    corrected, plain = [], []
    for _ in range(1000):
        splits = rng.permuted(np.broadcast_to(rng.normal(size=100), (15, 100)), axis=1)
        errors = ((splits[:, 80:] - splits[:, :80].mean(axis=1, keepdims=True)) ** 2).mean(axis=1)
        for found, ratio in ((corrected, 20 / 80), (plain, 0.0)):
            interval = corrected_mean(errors, test_over_train=ratio)
            found.append(interval.low <= truth <= interval.high)
    assert 0.92 < np.mean(corrected) < 0.98
    assert np.mean(plain) < 0.75


def test_values_that_do_not_vary_have_no_width_and_one_value_has_no_interval() -> None:
    flat, single = corrected_mean([0.1] * 5, test_over_train=0.25), corrected_mean([0.1], test_over_train=0.25)
    assert flat.low == flat.mean == flat.high == pytest.approx(0.1)
    assert np.isnan(flat.p_value)
    assert corrected_mean([0.0] * 5, test_over_train=0.25).p_value == 1.0
    assert np.isnan([single.low, single.high, single.p_value]).all()
    with pytest.raises(ValueError, match="cannot be -1"):
        corrected_mean([0.1, 0.2], test_over_train=-1)


def test_two_runs_that_happen_to_agree_are_no_evidence() -> None:
    """Two learners of equal accuracy, 30 test rows, two runs: they often differ by the same number of rows."""
    rng = np.random.default_rng(4)
    wrong = rng.binomial(30, 0.1, (4000, 2)) - rng.binomial(30, 0.1, (4000, 2))
    flat = wrong[(wrong[:, 0] == wrong[:, 1]) & (wrong[:, 0] != 0)]
    assert len(flat) > 200, "the case is common"
    p_values = np.array([corrected_mean(pair / 30, test_over_train=0.25).p_value for pair in wrong])
    assert (p_values < 0.05).mean() < 0.05


def test_interval_of_many_series_is_that_of_each() -> None:
    values = np.random.default_rng(3).normal(size=(3, 4, 10))
    values[0, 0] = 0.3
    low, high = corrected_interval(values, test_over_train=0.25)
    for place in np.ndindex(3, 4):
        alone = corrected_mean(values[place], test_over_train=0.25)
        assert (low[place], high[place]) == pytest.approx((alone.low, alone.high))
