import gc
import itertools

import numpy as np
import pytest

from plumbline.core.statistics.rates import rate_interval
from plumbline.throughput.measurement import timing
from plumbline.throughput.measurement.settings import TrialTiming

LONG = TrialTiming(seconds=1000, warmup_at_most=20)


def series(*seconds):
    """A call that takes these seconds, by its own account, and then the last for ever."""
    return iter([*seconds, *itertools.repeat(seconds[-1], 1000)]).__next__


def test_warm_up_ends_when_three_in_a_row_are_alike():
    assert timing.warm_up(series(9, 5, 2, 1.04, 1, 1.02, 7), LONG) == [9, 5, 2, 1.04, 1, 1.02]
    assert timing.warm_up(series(1), LONG) == [1, 1, 1]
    assert not timing.is_steady([1, 1])


def test_warm_up_ends_at_either_cap_but_not_before_three_calls():
    restless = [3, 1] * 20
    assert timing.warm_up(series(*restless), LONG) == restless[:20]
    assert timing.warm_up(series(*restless), LONG.model_copy(update={"warmup_at_most": 2})) == [3, 1]
    assert timing.warm_up(series(*restless), LONG.model_copy(update={"seconds": 10.0})) == [3, 1, 3, 1, 3]
    assert timing.warm_up(series(*restless), LONG.model_copy(update={"seconds": 0.1})) == [3, 1, 3]


def noisy(spread, seed=0):
    draw = np.random.default_rng(seed)
    return lambda: float(draw.lognormal(0, spread)) * 1e-3


def test_batches_are_timed_until_the_interval_is_narrow_enough():
    settings = TrialTiming(precision=0.03, min_batches=8, max_batches=200, seconds=60)
    assert len(list(timing.time_batches(noisy(0.001), settings))) == 8
    wild = list(timing.time_batches(noisy(0.1), settings))
    assert 8 < len(wild) < 200
    assert timing.is_precise(wild, 0.03)
    assert not timing.is_precise(wild[:8], 0.03)


def test_batches_end_at_either_cap_but_not_before_there_are_enough():
    wild = {"precision": 0.001, "min_batches": 8}
    assert len(list(timing.time_batches(noisy(1), TrialTiming(max_batches=20, seconds=60, **wild)))) == 20
    assert len(list(timing.time_batches(series(1.0, 2.0), TrialTiming(seconds=0.1, **wild)))) == 8
    alternating = itertools.cycle([0.1, 0.3]).__next__
    assert len(list(timing.time_batches(alternating, TrialTiming(seconds=2.0, **wild)))) == 10


def test_both_sides_of_the_interval_must_be_precise():
    seconds = [1.0] * 29 + [1.6]  # a slow one: the rate reaches further down than up
    low, high = rate_interval(np.array([[taken, 1.0] for taken in seconds]))
    rate = len(seconds) / sum(seconds)
    sides = sorted([rate - low, high - rate])
    between = sum(sides) / 2 / rate
    assert not timing.is_precise(seconds, between)
    assert timing.is_precise(seconds, 1.01 * sides[1] / rate)
    assert not timing.is_precise([1.0], 0.5)


def test_drift_is_the_robust_slope_over_all_batches():
    climbing = np.linspace(1.0, 1.2, 21)
    assert timing.drift(climbing) == pytest.approx(0.2 / 1.1)
    climbing[3] = 50.0  # one that hangs moves the mean, not the slope
    assert timing.drift(climbing) * climbing.mean() == pytest.approx(0.2, rel=0.05)
    assert timing.has_drifted(np.linspace(1.2, 1.0, 10), 0.03)
    assert timing.drift([1.0, 2.0]) is None
    assert not timing.has_drifted([1.0, 2.0], 0.03)


def test_noise_is_rarely_called_drift_and_a_small_drift_never():
    draw = np.random.default_rng(0)
    flagged = sum(timing.has_drifted(draw.lognormal(0, 0.1, 30), 0.0) for _ in range(300))
    assert flagged < 300 * 0.08
    assert not timing.has_drifted(np.linspace(1.0, 1.02, 100), 0.03)


def test_outliers_are_counted_on_either_side():
    usual = list(np.random.default_rng(0).uniform(0.99, 1.01, 30))
    assert timing.outliers(usual) == 0
    assert timing.outliers([*usual, 1.5, 0.5]) == 2
    assert timing.outliers([1.0] * 9 + [2.0]) == 1
    assert timing.outliers([1.0] * 9) == 0


def test_garbage_is_not_collected_while_timing():
    with timing.no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), timing.no_garbage_collection():
        raise ZeroDivisionError
    assert gc.isenabled()
