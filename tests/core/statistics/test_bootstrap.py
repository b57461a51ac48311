import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plumbline.core.statistics.bootstrap import (
    bootstrap_interval,
    clustered_interval,
    clustered_rank_interval,
    percentile_interval,
    ratio_interval,
    resampled_means,
)

finite = st.floats(-100, 100).map(lambda value: round(value, 3))
series = st.lists(finite, min_size=2, max_size=12)


@pytest.mark.parametrize("n", [8, 10, 40])
@pytest.mark.parametrize("skew", [False, True])
def test_interval_agrees_with_scipys_bca(n: int, skew: bool) -> None:
    rng = np.random.default_rng(n)
    values = rng.exponential(size=n) if skew else rng.normal(5, 1, size=n)
    low, high = bootstrap_interval(values, seed=1, resamples=40_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=40_000, method="BCa", rng=rng).confidence_interval
    width = theirs.high - theirs.low
    assert abs(low - theirs.low) < 0.02 * width
    assert abs(high - theirs.high) < 0.02 * width


def test_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 30))
    low, high = bootstrap_interval(samples, resamples=2000)
    covered = ((low <= 3.0) & (high >= 3.0)).mean()
    assert 0.91 < covered < 0.965


def test_vectorised_intervals_are_those_of_each_row_alone() -> None:
    samples = np.random.default_rng(3).normal(size=(4, 3, 10))
    low, high = bootstrap_interval(samples, seed=7, resamples=500)
    for index in np.ndindex(4, 3):
        alone = bootstrap_interval(samples[index], seed=7, resamples=500)
        np.testing.assert_allclose((low[index], high[index]), alone, rtol=1e-12)


@given(series, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_interval_lies_within_the_samples_and_repeats_with_its_seed(values: list[float], seed: int) -> None:
    low, high = bootstrap_interval(values, seed=seed, resamples=300)
    again = bootstrap_interval(values, seed=seed, resamples=300)
    assert (low, high) == again
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_equal_samples_have_no_width_and_one_sample_has_no_interval() -> None:
    low, high = bootstrap_interval([0.1] * 7)
    assert low == high == pytest.approx(0.1, abs=1e-15)
    assert all(math.isnan(end) for end in bootstrap_interval([0.4]))


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf]])
def test_missing_or_infinite_samples_are_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="sample"):
        bootstrap_interval(samples)


def test_ratio_interval_agrees_with_scipys_paired_bca() -> None:
    rng = np.random.default_rng(11)
    seconds, work = rng.lognormal(0, 0.4, 25), rng.integers(5, 20, 25)

    def ratio(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return x.sum(axis=axis) / y.sum(axis=axis)

    low, high = ratio_interval(seconds, work, resamples=40_000)
    theirs = stats.bootstrap((seconds, work), ratio, paired=True, n_resamples=40_000, rng=rng).confidence_interval
    width = theirs.high - theirs.low
    assert abs(low - theirs.low) < 0.03 * width
    assert abs(high - theirs.high) < 0.03 * width


def test_ratio_of_one_unit_or_over_nothing_has_no_interval() -> None:
    assert np.isnan(ratio_interval([1.0], [2.0])).all()
    assert np.isnan(ratio_interval([1.0, 2.0], [0.0, 0.0])).all()


@pytest.mark.parametrize("n", [40, 300])
def test_resampled_means_are_those_of_a_plain_loop_over_the_same_draws(n: int) -> None:
    values = np.random.default_rng(2).normal(size=(2, n))
    drawn = np.random.default_rng(4).multinomial(n, np.full(n, 1 / n), size=700)
    means = resampled_means(values, seed=4, resamples=700)
    for row in range(2):
        np.testing.assert_allclose(means[row], [np.repeat(values[row], times).mean() for times in drawn])
    assert percentile_interval(means[0]) == pytest.approx(tuple(np.percentile(means[0], [2.5, 97.5])))


def plain_interval(values: np.ndarray) -> tuple[float, float]:
    low, high = bootstrap_interval(values)
    return float(low), float(high)


def test_samples_that_are_their_own_groups_have_the_plain_interval() -> None:
    values = np.random.default_rng(5).exponential(size=14)
    assert clustered_interval(values, np.arange(14)) == pytest.approx(plain_interval(values), rel=1e-12)


def test_copies_of_a_sample_in_its_group_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(6).normal(size=12)
    copied, groups = np.repeat(values, 5), np.repeat(np.array(list("abcdefghijkl")), 5)
    assert clustered_interval(copied, groups) == pytest.approx(plain_interval(values), rel=1e-12)
    low, high = bootstrap_interval(copied)
    assert high - low < 0.6 * np.ptp(clustered_interval(copied, groups))


def test_clustered_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    """Groups of 1 to 8 samples that share half of their variance; the plain bootstrap misses it far too often."""
    rng = np.random.default_rng(7)
    covered, plain = [], []
    for _ in range(400):
        groups = np.repeat(np.arange(40), rng.integers(1, 9, 40))
        values = 3.0 + rng.normal(size=40)[groups] + rng.normal(size=len(groups))
        low, high = clustered_interval(values, groups)
        covered.append(low <= 3.0 <= high)
        low, high = bootstrap_interval(values, resamples=500)
        plain.append(low <= 3.0 <= high)
    assert 0.91 < np.mean(covered) < 0.98
    assert np.mean(plain) < 0.80


def test_samples_without_a_group_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        clustered_interval([1.0, 2.0, 3.0], [0, 1])


def test_rank_interval_agrees_with_scipys_paired_bca() -> None:
    rng = np.random.default_rng(8)
    first = rng.normal(size=30).round(1)
    second = first + rng.normal(size=30).round(1)

    def spearman(one: np.ndarray, two: np.ndarray) -> float:
        return float(stats.spearmanr(one, two).statistic)

    theirs = stats.bootstrap((first, second), spearman, paired=True, vectorized=False, n_resamples=4000, rng=rng)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    found = clustered_rank_interval(first, second, np.arange(30))
    assert found == pytest.approx(tuple(theirs.confidence_interval), abs=0.06 * width)


def test_copies_of_a_pair_in_its_group_do_not_narrow_the_rank_interval() -> None:
    first, second = np.random.default_rng(9).normal(size=(2, 12))
    groups = np.repeat(np.arange(12), 5)
    found = clustered_rank_interval(first[groups], second[groups], groups)
    assert found == pytest.approx(clustered_rank_interval(first, second, np.arange(12)), rel=1e-9)


def test_rank_interval_is_missing_for_one_group_and_where_one_draw_has_equal_values_only() -> None:
    for groups in ([0, 0, 0, 0], [0, 1, 2, 3]):
        assert all(math.isnan(end) for end in clustered_rank_interval([1, 2, 3, 4], [1, 3, 2, 4], groups))
