"""Before and after: a change is called one as often as chance allows, and as the textbook tests say."""

import numpy as np
import pytest
from scipy import stats

from plumbline.core.statistics.before_after import Measured, changes


def measured(values, unit="a", goal="max", shared=0.0, **how):
    return [
        Measured(unit=unit, measure="m", replicate=str(n), value=float(v), goal=goal, test_over_train=shared, **how)
        for n, v in enumerate(values)
    ]


def only(before, after, threshold=0.0, **options):
    (change,) = changes(measured(before, **options), measured(after, **options), threshold)
    return change


def test_pairs_take_the_paired_t_test_and_its_interval():
    before, after = [1.0, 2.0, 4.0, 3.0], [1.4, 2.5, 4.3, 3.6]
    change, test = only(before, after), stats.ttest_rel(after, before)
    interval = test.confidence_interval()
    assert change.p_value == pytest.approx(test.pvalue)
    assert (change.low, change.high) == pytest.approx((interval.low, interval.high))
    assert (change.before, change.after, change.replicates) == pytest.approx((2.5, 2.95, 4))


def test_replicates_that_are_no_pairs_take_welchs_test():
    before, after = [1.0, 1.1, 0.9, 1.05], [1.5, 1.2, 1.9]
    change, test = only(before, after, shared=None), stats.ttest_ind(after, before, equal_var=False)
    interval = test.confidence_interval()
    assert change.p_value == pytest.approx(test.pvalue)
    assert (change.low, change.high) == pytest.approx((interval.low, interval.high))


def test_ratios_take_welchs_test_of_their_logarithms():
    before, after = [1.0, 1.1, 0.9, 1.05], [1.5, 1.2, 1.9]
    change = only(before, after, shared=None, is_ratio=True)
    test = stats.ttest_ind(np.log(after), np.log(before), equal_var=False)
    interval = np.exp(test.confidence_interval())
    assert change.p_value == pytest.approx(test.pvalue)
    assert (change.before, change.after) == pytest.approx((stats.gmean(before), stats.gmean(after)))
    assert (1 + change.low / change.before, 1 + change.high / change.before) == pytest.approx(tuple(interval))


def test_a_count_that_all_replicates_agree_on_needs_no_test():
    found = {
        name: only(before, after, goal="min", shared=None, is_count=True)
        for name, before, after in (
            ("agree", [76, 76], [80, 80]),
            ("vary", [76, 76, 75], [80, 80, 81]),
            ("one", [76], [80]),
        )
    }
    assert (found["agree"].verdict, found["agree"].low, found["agree"].high) == ("worse", 4, 4)
    assert found["vary"].low < found["vary"].difference < found["vary"].high
    assert found["one"].verdict == "unknown"


@pytest.mark.filterwarnings("error")
def test_a_side_that_does_not_vary_is_tested_without_a_warning():
    change = only([3.0, 3.0, 3.0], [4.0, 4.1, 4.2], shared=None)
    assert change.verdict == "better"
    assert change.p_value == pytest.approx(stats.ttest_1samp([4.0, 4.1, 4.2], 3.0).pvalue)


@pytest.mark.parametrize(("goal", "verdict"), [("max", "better"), ("min", "worse"), (None, "different")])
def test_the_goal_says_what_a_higher_value_means(goal, verdict):
    assert only([1, 2, 3, 4], [2, 3.1, 4, 5.1], goal=goal).verdict == verdict


def test_the_same_values_are_equal_whatever_the_threshold_and_ask_for_no_correction():
    before = measured([1, 2, 3]) + measured([1.0, 2.0, 4.0, 3.0], unit="b")
    after = measured([1, 2, 3]) + measured([1.4, 2.5, 4.3, 3.6], unit="b")
    same, other = changes(before, after, 0.0)
    assert same.verdict == "equal"
    assert other.p_value == pytest.approx(stats.ttest_rel([1.4, 2.5, 4.3, 3.6], [1.0, 2.0, 4.0, 3.0]).pvalue)


def test_the_threshold_is_a_share_of_the_value_before():
    before, after = [10.0, 11.0, 9.0, 10.0], [10.5, 11.52, 9.51, 10.49]
    assert only(before, after).verdict == "better"
    assert only(before, after, threshold=0.04).verdict == "better"
    assert only(before, after, threshold=0.05).verdict == "unclear"
    assert only(before, after, threshold=0.06).verdict == "equal"


@pytest.mark.parametrize(("before", "after"), [([1.0], [2.0]), ([1.0, 2.0], [2.0, 3.0])])
def test_one_replicate_or_differences_that_do_not_vary_are_unknown(before, after):
    assert only(before, after).verdict == "unknown"
    assert only([1.0], [2.0], shared=None).verdict == "unknown"


def test_only_replicates_of_both_sides_count_and_a_number_that_is_not_finite_is_none():
    change = only([1.0, 2.0, float("nan"), 9.0], [1.5, 2.4, 3.0])
    assert (change.replicates, change.before) == (2, 1.5)
    assert changes(measured([1.0], unit="a"), measured([1.0], unit="b"), 0.0) == []


def test_shared_data_widens_the_interval_as_nadeau_and_bengio_say():
    before, after = [1.0, 2.0, 4.0, 3.0], [1.4, 2.5, 4.3, 3.6]
    alone, shared = only(before, after), only(before, after, shared=0.5)
    widths = [change.high - change.low for change in (alone, shared)]
    assert widths[1] / widths[0] == pytest.approx(((1 / 4 + 0.5) / (1 / 4)) ** 0.5)


@pytest.mark.parametrize("shared", [0.0, None], ids=["pairs", "no pairs"])
def test_of_ten_units_without_a_change_any_is_called_one_in_at_most_a_twentieth_of_comparisons(shared):
    draw, times = np.random.default_rng(0), 300
    wrong = 0
    for _ in range(times):
        sides = [
            [one for unit in range(10) for one in measured(draw.normal(size=5), unit=str(unit), shared=shared)]
            for _ in range(2)
        ]
        wrong += any(change.verdict in ("better", "worse") for change in changes(*sides, 0.0))
    assert wrong <= stats.binom.ppf(0.999, times, 0.05)
