import itertools
from statistics import fmean

import numpy as np
import pytest
import torch

from plumbline.throughput.measurement import pace as module
from plumbline.throughput.measurement.pace import Pace, TimedCall, time_batches, which_count
from plumbline.throughput.measurement.timing import is_precise
from plumbline.throughput.settings import TrialTiming

CPU = torch.device("cpu")
FULL, SLOW = 1.0, 1.4
"""Seconds of the fixed work."""


def series(*seconds):
    """A call that takes these seconds, by its own account, and then the last for ever."""
    return iter([*seconds, *itertools.repeat(seconds[-1], 1000)]).__next__


def noisy(spread, seed=0):
    draw = np.random.default_rng(seed)
    return lambda: float(draw.lognormal(0, spread)) * 1e-3


@pytest.fixture
def paced(monkeypatch):
    """A pace whose work takes the seconds that are given, then the last for ever."""

    def make(*seconds, fastest=None):
        look = series(*(each for look in seconds or (FULL,) for each in [look] * module.TRIES))
        monkeypatch.setattr(module, "clocked", lambda work, synchronise: look())
        return Pace(CPU, 1, fastest)

    return make


def seconds_of(batches):
    return [batch.seconds for batch in batches]


def test_batches_are_timed_until_the_interval_is_narrow_enough(paced):
    settings = TrialTiming(precision=0.03, min_batches=8, max_batches=200, seconds=60)
    steady = list(time_batches(noisy(0.001), paced(), settings))
    assert len(steady) == 8
    wild = seconds_of(time_batches(noisy(0.1), paced(), settings))
    assert 8 < len(wild) < 200
    assert is_precise(wild, 0.03)
    assert not is_precise(wild[:8], 0.03)


def test_batches_end_at_either_cap_but_not_before_there_are_enough(paced):
    wild = {"precision": 0.001, "min_batches": 8}
    assert len(list(time_batches(noisy(1), paced(), TrialTiming(max_batches=20, seconds=60, **wild)))) == 20
    assert len(list(time_batches(series(1.0, 2.0), paced(), TrialTiming(seconds=0.1, **wild)))) == 8
    alternating = itertools.cycle([0.1, 0.3]).__next__
    assert len(list(time_batches(alternating, paced(), TrialTiming(seconds=2.0, **wild)))) == 10


def test_batch_has_the_slower_pace_of_just_before_and_just_after(paced):
    batches = time_batches(series(1.0), paced(FULL, FULL, SLOW, FULL), TrialTiming(seconds=4, min_batches=4))
    assert [batch.pace_seconds for batch in batches] == [FULL, SLOW, SLOW, FULL, FULL, FULL]


def test_timing_continues_through_a_slow_stretch(paced):
    pace = paced(*[FULL] * 5, *[SLOW] * 20, FULL)
    call = series(*[0.1] * 4, *[0.2] * 21, 0.1)
    timing = TrialTiming(precision=0.001, min_batches=8, seconds=3.0)
    batches = list(time_batches(call, pace, timing))
    full = pace.at_full(batches, timing.pace_tolerance)
    assert len(batches) - len(full) == 21
    assert seconds_of(full) == [0.1] * 8
    assert fmean(seconds_of(batches)) > 0.15


def test_timing_ends_if_the_machine_stays_slow(paced):
    timing = TrialTiming(seconds=1.0, patience=3.0, min_batches=8)
    assert len(list(time_batches(series(0.25), paced(SLOW, fastest=FULL), timing))) == 12
    assert len(list(time_batches(series(1.0), paced(SLOW, fastest=FULL), timing))) == 8


def test_full_speed_is_relative_to_the_fastest_pace_so_far(paced):
    pace = paced(SLOW, FULL, fastest=None)
    batch = TimedCall(0.1, pace.measure())
    assert pace.is_full(batch, 0.07)
    pace.measure()
    assert not pace.is_full(batch, 0.07)
    assert pace.is_full(TimedCall(0.1, 1.06 * FULL), 0.07)
    assert paced(SLOW, fastest=FULL).fastest == FULL


def test_discarded_batches_are_bounded_too(paced):
    timing = TrialTiming(seconds=1000.0, patience=3.0, min_batches=8, max_batches=20)
    assert len(list(time_batches(series(0.001), paced(SLOW, fastest=FULL), timing))) == 60


def test_one_interruption_is_not_the_pace(monkeypatch):
    tries = iter([5.0, *[FULL] * (module.TRIES - 1)])
    monkeypatch.setattr(module, "clocked", lambda work, synchronise: next(tries))
    assert Pace(CPU, 1).measure() == FULL


@pytest.mark.parametrize(
    ("full", "slowed", "counts"),
    [
        ([True] * 8, False, [True] * 8),
        ([False, True] * 4, False, [False, True] * 4),
        ([False] * 5 + [True] * 3, True, [True] * 6 + [False] * 2),
        ([False] * 3, True, [True] * 3),
    ],
)
def test_batches_at_full_speed_count_unless_they_are_too_few(paced, full, slowed, counts):
    batches = [TimedCall(0.1, FULL if each else SLOW) for each in full]
    timing = TrialTiming(min_batches=8, max_batches=8).model_copy(update={"max_batches": 6})
    assert which_count(batches, paced(fastest=FULL), timing) == (slowed, counts)


def test_work_takes_time():
    pace = Pace(CPU, 1)
    looks = [pace.measure() for _ in range(20)]
    assert 0 < pace.fastest == min(looks)
