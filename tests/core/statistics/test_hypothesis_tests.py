import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from plumbline.core.statistics.hypothesis_tests import clustered_above_p, holm

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=30)


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


def test_samples_in_groups_of_one_have_the_ordinary_t_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 40)
    expected = stats.ttest_1samp(values, 0.1, alternative="greater").pvalue
    assert clustered_above_p(values, np.arange(40), 0.1) == pytest.approx(expected)


def test_groups_that_hit_or_miss_together_do_not_pass_for_many_samples() -> None:
    """A guess that is right for whole groups of ten: the binomial test, which counts samples, is fooled."""
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(30), 10)
    ours, binomial = [], []
    for _ in range(500):
        hits = (rng.random(30) < 0.1)[groups].astype(float)
        ours.append(clustered_above_p(hits, groups, 0.1) < 0.05)
        binomial.append(stats.binomtest(int(hits.sum()), 300, 0.1, alternative="greater").pvalue < 0.05)
    assert np.mean(ours) < 0.07
    assert np.mean(binomial) > 0.2


def test_a_mean_against_a_level_without_spread_or_with_a_single_group() -> None:
    assert [clustered_above_p(np.ones(6), np.arange(6) // 2, level) for level in (0.1, 1.0)] == [0.0, 1.0]
    assert math.isnan(clustered_above_p([0.0, 1.0], [3, 3], 0.1))
