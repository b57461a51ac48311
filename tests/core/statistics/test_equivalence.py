import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plumbline.core.statistics.equivalence import equivalence_p


@given(st.integers(0, 10_000), st.integers(2, 30), st.floats(-0.1, 0.1), st.floats(0.01, 0.2))
@settings(max_examples=80, deadline=None)
def test_p_is_the_larger_of_scipys_two_one_sided_tests(seed: int, n: int, shift: float, margin: float) -> None:
    differences = np.random.default_rng(seed).normal(shift, 0.05, n)
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert equivalence_p(differences, margin) == pytest.approx(max(above, below), rel=1e-9, abs=1e-300)


def test_p_is_below_five_percent_exactly_when_the_90_percent_interval_lies_within() -> None:
    rng = np.random.default_rng(0)
    within = []
    for _ in range(300):
        differences = rng.normal(0.01, 0.03, 12)
        low, high = stats.t.interval(0.9, 11, differences.mean(), stats.sem(differences))
        within.append(low > -0.03 and high < 0.03)
        assert (equivalence_p(differences, 0.03) < 0.05) == within[-1]
    assert 0 < sum(within) < 300


def test_a_difference_at_the_margin_is_called_equivalent_no_oftener_than_five_percent() -> None:
    draws = np.random.default_rng(1).normal(0.03, 0.02, (2000, 15))
    assert np.mean([equivalence_p(differences, 0.03) < 0.05 for differences in draws]) < 0.065


def test_differences_that_do_not_vary_are_decided_and_a_single_one_is_not() -> None:
    assert equivalence_p([0.01] * 3, 0.02) == 0.0
    assert equivalence_p([0.03] * 3, 0.02) == 1.0
    assert equivalence_p([0.0] * 3, 0.02) == 0.0
    assert np.isnan(equivalence_p([0.01], 0.02))
    with pytest.raises(ValueError, match="margin above 0"):
        equivalence_p([0.01, 0.02], 0.0)
