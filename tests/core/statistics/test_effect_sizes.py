import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.core.statistics.effect_sizes import cliffs_delta, cohens_dz, rank_biserial

tenths = st.lists(st.integers(-5, 5).map(lambda value: value / 10), min_size=1, max_size=12)


@given(tenths, tenths)
@settings(max_examples=100, deadline=None)
def test_cliffs_delta_counts_the_pairs_above_minus_those_below(first: list[float], second: list[float]) -> None:
    signs = [np.sign(round(one - two, 6)) for one in first for two in second]
    assert cliffs_delta(first, second) == pytest.approx(np.mean(signs))


def test_cliffs_delta_of_separated_samples_is_one_and_of_ties_zero() -> None:
    assert cliffs_delta([3, 4], [1, 2, 2.5]) == 1.0
    assert cliffs_delta([1, 2], [3]) == -1.0
    assert cliffs_delta([0.9 - 0.85], [0.85 - 0.8]) == 0.0  # equal but for rounding


def test_rank_biserial_is_by_hand_of_ranks_one_two_and_a_half_and_four() -> None:
    """|differences| 1, 2, 2, 3 have ranks 1, 2.5, 2.5, 4; the negative one has 2.5 of 10."""
    assert rank_biserial([1, 2, -2, 3, 0]) == pytest.approx((7.5 - 2.5) / 10)


def test_effect_of_differences_that_do_not_vary() -> None:
    assert cohens_dz([0.1] * 4) == np.inf
    assert cohens_dz([-0.1] * 4) == -np.inf
    assert cohens_dz([0.0] * 4) == 0.0
    assert np.isnan(cohens_dz([0.1]))
