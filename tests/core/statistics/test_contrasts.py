import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plumbline.core.statistics import contrasts as statistics

finite = st.floats(-100, 100).map(lambda value: round(value, 3))
series = st.lists(finite, min_size=2, max_size=12)
p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@pytest.mark.parametrize("n", [8, 10, 40])
@pytest.mark.parametrize("skew", [False, True])
def test_interval_agrees_with_scipys_bca(n: int, skew: bool) -> None:
    rng = np.random.default_rng(n)
    values = rng.exponential(size=n) if skew else rng.normal(5, 1, size=n)
    low, high = statistics.bootstrap_interval(values, seed=1, resamples=40_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=40_000, method="BCa", rng=rng).confidence_interval
    width = theirs.high - theirs.low
    assert abs(low - theirs.low) < 0.02 * width
    assert abs(high - theirs.high) < 0.02 * width


def test_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 30))
    low, high = statistics.bootstrap_interval(samples, resamples=2000)
    covered = ((low <= 3.0) & (high >= 3.0)).mean()
    assert 0.91 < covered < 0.965


def test_vectorised_intervals_are_those_of_each_row_alone() -> None:
    samples = np.random.default_rng(3).normal(size=(4, 3, 10))
    low, high = statistics.bootstrap_interval(samples, seed=7, resamples=500)
    for index in np.ndindex(4, 3):
        alone = statistics.bootstrap_interval(samples[index], seed=7, resamples=500)
        np.testing.assert_allclose((low[index], high[index]), alone, rtol=1e-12)


@given(series, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_interval_lies_within_the_samples_and_repeats_with_its_seed(values: list[float], seed: int) -> None:
    low, high = statistics.bootstrap_interval(values, seed=seed, resamples=300)
    again = statistics.bootstrap_interval(values, seed=seed, resamples=300)
    assert (low, high) == again
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_equal_samples_have_no_width_and_one_sample_has_no_interval() -> None:
    low, high = statistics.bootstrap_interval([0.1] * 7)
    assert low == high == pytest.approx(0.1, abs=1e-15)
    assert all(math.isnan(end) for end in statistics.bootstrap_interval([0.4]))


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf]])
def test_missing_or_infinite_samples_are_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="sample"):
        statistics.bootstrap_interval(samples)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_wilcoxon_p_is_the_share_of_sign_flips_at_least_as_extreme(values: list[int]) -> None:
    """Brute force over all 2^n signs, ties and zeros included."""
    kept = [value for value in values if value]
    ranks = stats.rankdata(np.abs(kept)) if kept else np.array([])
    observed = abs((ranks * np.sign(kept)).sum())
    flips = [abs((ranks * signs).sum()) for signs in itertools.product((1, -1), repeat=len(kept))]
    expected = np.mean([flip >= observed - 1e-9 for flip in flips])
    assert statistics.wilcoxon_p(np.array(values) / 10) == pytest.approx(expected, abs=1e-9)


def test_wilcoxon_sees_the_ties_that_rounding_hides() -> None:
    hidden = np.array([0.9 - 0.85, 0.85 - 0.8, 0.35 - 0.3, 0.3 - 0.35, 0.2 - 0.1])
    assert len(set(np.abs(hidden[:4]))) > 1
    assert statistics.wilcoxon_p(hidden) == statistics.wilcoxon_p([0.05, 0.05, 0.05, -0.05, 0.1])


def test_contrast_is_the_paired_one() -> None:
    """A constant gain on runs that differ widely: unpaired spread would hide it."""
    baseline = np.linspace(0.1, 0.9, 10)
    noise = np.array([1, -1, 2, 0, -2, 1, 0, 1, -1, 0]) * 1e-3
    contrast = statistics.paired_contrast(baseline + 0.05 + noise, baseline)
    assert contrast.pairs == 10
    assert contrast.difference == pytest.approx(0.05 + noise.mean())
    assert 0.048 < contrast.low < contrast.difference < contrast.high < 0.052
    assert contrast.p_value == contrast.p_floor == 2 / 2**10
    assert contrast.rank_biserial == 1.0
    assert contrast.cohens_dz == pytest.approx((0.05 + noise.mean()) / noise.std(ddof=1))


def test_relative_difference_agrees_with_scipys_paired_bca_of_the_ratio() -> None:
    rng = np.random.default_rng(5)
    baseline = rng.uniform(0.4, 0.6, size=12)
    sample = baseline * 0.7 + rng.normal(0, 0.02, size=12)
    contrast = statistics.paired_contrast(sample, baseline, resamples=40_000)

    def ratio(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return x.mean(axis=axis) / y.mean(axis=axis) - 1

    theirs = stats.bootstrap(
        (sample, baseline), ratio, paired=True, n_resamples=30_000, rng=rng, vectorized=True
    ).confidence_interval
    assert contrast.relative == pytest.approx(sample.mean() / baseline.mean() - 1)
    assert contrast.relative_low == pytest.approx(theirs.low, abs=0.03 * (theirs.high - theirs.low))
    assert contrast.relative_high == pytest.approx(theirs.high, abs=0.03 * (theirs.high - theirs.low))


@given(series, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_swapping_the_two_sides_turns_every_sign(values: list[float], seed: int) -> None:
    other = np.random.default_rng(seed).normal(size=len(values)).round(3)
    one = statistics.paired_contrast(values, other, resamples=200)
    two = statistics.paired_contrast(other, values, resamples=200)
    assert one.difference == -two.difference
    assert one.p_value == two.p_value
    assert one.rank_biserial == pytest.approx(-two.rank_biserial)
    assert one.cohens_dz == pytest.approx(-two.cohens_dz, nan_ok=True)
    assert abs(one.rank_biserial) <= 1


def test_no_difference_at_all_is_no_effect() -> None:
    contrast = statistics.paired_contrast([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (contrast.difference, contrast.low, contrast.high) == (0, 0, 0)
    assert (contrast.p_value, contrast.rank_biserial, contrast.cohens_dz) == (1.0, 0.0, 0.0)


def test_unequal_lengths_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="one length"):
        statistics.paired_contrast([1, 2, 3], [1, 2])


def test_zero_baseline_has_no_relative_difference() -> None:
    contrast = statistics.paired_contrast([0.1, 0.2], [0.0, 0.0])
    assert math.isnan(contrast.relative)
    assert contrast.difference == pytest.approx(0.15)


def test_holm_of_holms_steps_by_hand() -> None:
    """0.01 x 4, 0.013 x 3 lifted to 0.04, 0.014 x 2 lifted too, 0.19 x 1."""
    np.testing.assert_allclose(statistics.holm([0.013, 0.19, 0.01, 0.014]), [0.04, 0.19, 0.04, 0.04])
    np.testing.assert_allclose(statistics.holm([0.6, 0.7]), [1.0, 1.0])


@given(p_lists, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], alpha: float) -> None:
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - step) > alpha:
            break
        rejected.add(index)
    assert set(np.flatnonzero(statistics.holm(p_values) <= alpha)) == rejected


@given(p_lists)
def test_holm_is_never_below_p_nor_above_bonferroni(p_values: list[float]) -> None:
    corrected = statistics.holm(p_values)
    assert (corrected >= np.array(p_values)).all()
    assert (corrected <= np.minimum(1, np.array(p_values) * len(p_values))).all()


def test_tests_that_could_not_be_made_do_not_count_in_the_family() -> None:
    corrected = statistics.holm([0.02, math.nan, 0.5])
    np.testing.assert_allclose(corrected[[0, 2]], statistics.holm([0.02, 0.5]))
    assert math.isnan(corrected[1])
