import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plumbline.core.statistics.hypothesis_tests import holm, wilcoxon_p

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_wilcoxon_p_is_the_share_of_sign_flips_at_least_as_extreme(values: list[int]) -> None:
    """Brute force over all 2^n signs, ties and zeros included."""
    kept = [value for value in values if value]
    ranks = stats.rankdata(np.abs(kept)) if kept else np.array([])
    observed = abs((ranks * np.sign(kept)).sum())
    flips = [abs((ranks * signs).sum()) for signs in itertools.product((1, -1), repeat=len(kept))]
    expected = np.mean([flip >= observed - 1e-9 for flip in flips])
    assert wilcoxon_p(np.array(values) / 10) == pytest.approx(expected, abs=1e-9)


def test_wilcoxon_sees_the_ties_that_rounding_hides() -> None:
    hidden = np.array([0.9 - 0.85, 0.85 - 0.8, 0.35 - 0.3, 0.3 - 0.35, 0.2 - 0.1])
    assert len(set(np.abs(hidden[:4]))) > 1
    assert wilcoxon_p(hidden) == wilcoxon_p([0.05, 0.05, 0.05, -0.05, 0.1])


def test_holm_of_holms_steps_by_hand() -> None:
    """0.01 x 4, 0.013 x 3 lifted to 0.04, 0.014 x 2 lifted too, 0.19 x 1."""
    np.testing.assert_allclose(holm([0.013, 0.19, 0.01, 0.014]), [0.04, 0.19, 0.04, 0.04])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])


@given(p_lists, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], alpha: float) -> None:
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - step) > alpha:
            break
        rejected.add(index)
    assert set(np.flatnonzero(holm(p_values) <= alpha)) == rejected


@given(p_lists)
def test_holm_is_never_below_p_nor_above_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert (corrected >= np.array(p_values)).all()
    assert (corrected <= np.minimum(1, np.array(p_values) * len(p_values))).all()


def test_tests_that_could_not_be_made_do_not_count_in_the_family() -> None:
    corrected = holm([0.02, math.nan, 0.5])
    np.testing.assert_allclose(corrected[[0, 2]], holm([0.02, 0.5]))
    assert math.isnan(corrected[1])


@given(st.lists(st.integers(-300, 300).filter(bool), unique_by=abs, min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_wilcoxon_p_without_ties_is_scipys_exact_one(values: list[int]) -> None:
    assert wilcoxon_p(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, abs=1e-9)
