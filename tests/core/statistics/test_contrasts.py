import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plumbline.core.statistics.contrasts import paired_contrast

finite = st.floats(-100, 100).map(lambda value: round(value, 3))
series = st.lists(finite, min_size=2, max_size=12)


def test_contrast_is_the_paired_one() -> None:
    """A constant gain on runs that differ widely: unpaired spread would hide it."""
    baseline = np.linspace(0.1, 0.9, 10)
    noise = np.array([1, -1, 2, 0, -2, 1, 0, 1, -1, 0]) * 1e-3
    contrast = paired_contrast(baseline + 0.05 + noise, baseline, test_over_train=0.25)
    assert contrast.pairs == 10
    assert contrast.difference == pytest.approx(0.05 + noise.mean())
    assert 0.048 < contrast.low < contrast.difference < contrast.high < 0.052
    assert contrast.p_value < 1e-6
    assert contrast.rank_biserial == 1.0
    assert contrast.cohens_dz == pytest.approx((0.05 + noise.mean()) / noise.std(ddof=1))


def test_pairs_that_share_no_data_have_the_ordinary_paired_t_test() -> None:
    rng = np.random.default_rng(4)
    one, two = rng.normal(0.52, 0.02, 10), rng.normal(0.5, 0.02, 10)
    contrast, theirs = paired_contrast(one, two, test_over_train=0), stats.ttest_rel(one, two)
    assert contrast.p_value == pytest.approx(theirs.pvalue)
    assert (contrast.low, contrast.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_shared_rows_widen_the_interval_by_nadeau_and_bengios_factor() -> None:
    rng = np.random.default_rng(4)
    one, two = rng.normal(0.53, 0.02, 10), rng.normal(0.5, 0.02, 10)
    plain, corrected = (paired_contrast(one, two, test_over_train=ratio) for ratio in (0.0, 2 / 7))
    wider = (1 + 10 * 2 / 7) ** 0.5
    assert (corrected.high - corrected.low) / (plain.high - plain.low) == pytest.approx(wider)
    assert corrected.relative_low < plain.relative_low < plain.relative_high < corrected.relative_high
    assert plain.p_value < 0.05 < corrected.p_value


def test_relative_difference_agrees_with_a_paired_bootstrap_of_the_ratio() -> None:
    rng = np.random.default_rng(5)
    baseline = rng.uniform(0.4, 0.6, size=200)
    sample = baseline * 0.7 + rng.normal(0, 0.02, size=200)
    contrast = paired_contrast(sample, baseline, test_over_train=0)

    def ratio(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return x.mean(axis=axis) / y.mean(axis=axis) - 1

    theirs = stats.bootstrap(
        (sample, baseline), ratio, paired=True, n_resamples=30_000, rng=rng, vectorized=True
    ).confidence_interval
    assert contrast.relative == pytest.approx(sample.mean() / baseline.mean() - 1)
    assert contrast.relative_low == pytest.approx(theirs.low, abs=0.05 * (theirs.high - theirs.low))
    assert contrast.relative_high == pytest.approx(theirs.high, abs=0.05 * (theirs.high - theirs.low))


@given(st.integers(0, 1000), st.floats(0.9, 1.1), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_relative_interval_ends_where_the_difference_from_that_ratio_begins_to_be_significant(
    seed: int, ratio: float, shared: float
) -> None:
    rng = np.random.default_rng(seed)
    baseline = rng.uniform(0.4, 0.6, size=8)
    sample = ratio * baseline + rng.normal(0, 0.03, size=8)
    found = paired_contrast(sample, baseline, test_over_train=shared)
    for end in (found.relative_low, found.relative_high):
        assert paired_contrast(sample, (1 + end) * baseline, test_over_train=shared).p_value == pytest.approx(0.05)
    assert (found.relative_low <= 0 <= found.relative_high) == (found.low <= 0 <= found.high)


def test_relative_interval_has_no_bounds_where_the_baseline_cannot_be_told_from_zero() -> None:
    found = paired_contrast([1.0, 2.0, 1.5], [0.5, -0.4, 0.1], test_over_train=0)
    assert math.isfinite(found.relative)
    assert math.isnan(found.relative_low)
    assert math.isnan(found.relative_high)


@given(series, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_swapping_the_two_sides_turns_every_sign(values: list[float], seed: int) -> None:
    other = np.random.default_rng(seed).normal(size=len(values)).round(3)
    one = paired_contrast(values, other, test_over_train=0.25)
    two = paired_contrast(other, values, test_over_train=0.25)
    assert one.difference == -two.difference
    assert one.p_value == two.p_value
    assert one.rank_biserial == pytest.approx(-two.rank_biserial)
    assert one.cohens_dz == pytest.approx(-two.cohens_dz, nan_ok=True)
    assert abs(one.rank_biserial) <= 1


def test_no_difference_at_all_is_no_effect() -> None:
    contrast = paired_contrast([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], test_over_train=0.25)
    assert (contrast.difference, contrast.low, contrast.high) == (0, 0, 0)
    assert (contrast.p_value, contrast.rank_biserial, contrast.cohens_dz) == (1.0, 0.0, 0.0)


def test_unequal_lengths_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="one length"):
        paired_contrast([1, 2, 3], [1, 2], test_over_train=0)


def test_zero_baseline_has_no_relative_difference() -> None:
    contrast = paired_contrast([0.1, 0.2], [0.0, 0.0], test_over_train=0)
    assert math.isnan(contrast.relative)
    assert contrast.difference == pytest.approx(0.15)
