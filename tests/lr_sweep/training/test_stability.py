import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.lr_sweep.record import Criterion, Stability
from plumbline.lr_sweep.settings import StabilitySettings
from plumbline.lr_sweep.training.stability import LEAST_NOISE, classify, z_scores

SETTINGS = StabilitySettings(window=8, spike_z=6.0, plateau_margin=0.01)
ENTROPY = 5.0


def falling(steps=60, start=6.0, end=3.0):
    noise = np.random.default_rng(0).normal(scale=0.02, size=steps)
    return list(np.linspace(start, end, steps) + noise)


def verdict(losses, final=3.0, initial=6.0):
    return classify(losses, [initial, final], final, ENTROPY, SETTINGS)


def test_falling_loss_has_converged():
    assert verdict(falling()).stability == Stability.CONVERGED


def test_jump_that_comes_back_is_a_spike_and_is_placed():
    losses = falling()
    losses[40] += 2
    found = verdict(losses)
    assert found.stability == Stability.SPIKED
    assert found.spikes == 1
    assert "step 41" in found.why


def test_loss_at_the_unigram_entropy_is_a_plateau_whatever_it_did_before():
    losses = falling(end=5.0)
    losses[40] += 3
    assert verdict(losses, final=ENTROPY - 0.005).stability == Stability.PLATEAUED
    assert verdict(falling(), final=ENTROPY - 0.02).stability == Stability.CONVERGED


def test_final_loss_above_the_initial_one_has_diverged():
    assert verdict(falling(), final=6.01).stability == Stability.DIVERGED


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_has_diverged_at_its_step(value):
    losses = falling()
    losses[30] = value
    found = verdict(losses)
    assert found.stability == Stability.DIVERGED
    assert "step 31" in found.why


def test_validation_loss_that_is_not_finite_has_diverged():
    assert verdict(falling(), final=math.nan).stability == Stability.DIVERGED


def blown_up(peak, first, last, steps=60, initial=6.0):
    """A falling loss that is at `peak` from step `first` to step `last`."""
    losses = falling(steps, start=initial - 0.2)
    losses[first - 1 : last] = [peak] * (last - first + 1)
    return losses


def test_blow_up_during_warm_up_is_a_spike_even_before_a_whole_window_has_passed():
    found = verdict(blown_up(11.9, 3, 5))
    assert (found.stability, found.criterion) == (Stability.SPIKED, Criterion.PEAK)
    assert found.peak_ratio == pytest.approx(11.9 / 6)
    assert found.last_step_above_initial == 5
    assert "rose to 11.9 at step 3" in found.why
    assert "below the initial loss after step 5" in found.why


@pytest.mark.parametrize(("last", "stability"), [(31, Stability.SPIKED), (32, Stability.DIVERGED)])
def test_run_that_is_above_its_initial_loss_most_of_the_time_has_diverged_though_it_ends_below(last, stability):
    found = verdict(blown_up(200.0, 2, last))
    assert found.stability == stability
    assert found.share_above_initial == pytest.approx((last - 1) / 60, rel=1e-12)


@pytest.mark.parametrize(
    ("losses", "final", "criterion"),
    [
        ([*falling(), math.nan], 3.0, Criterion.NOT_FINITE),
        (falling(), 6.5, Criterion.FINAL_LOSS),
        (blown_up(9.0, 2, 50), 3.0, Criterion.TIME_ABOVE_INITIAL),
        (blown_up(9.0, 2, 5), ENTROPY, Criterion.UNIGRAM_ENTROPY),
        (blown_up(9.0, 2, 5), 3.0, Criterion.PEAK),
        (blown_up(5.9, 40, 40), 3.0, Criterion.Z_SCORE),
        (falling(), 3.0, Criterion.NONE),
    ],
)
def test_criterion_that_decided_is_named(losses, final, criterion):
    assert verdict(losses, final=final).criterion == criterion


def test_one_step_gives_no_z_score():
    assert math.isnan(verdict([5.9]).largest_z)


@given(st.lists(st.floats(0, 50), min_size=2, max_size=40), st.integers(1, 12))
def test_z_scores_are_those_of_a_plain_loop_from_the_second_step_on(losses, window):
    changes = sorted(abs(after - before) for before, after in itertools.pairwise(losses))
    middle = (changes[(len(changes) - 1) // 2] + changes[len(changes) // 2]) / 2
    noise = max(middle / (0.6745 * math.sqrt(2)), LEAST_NOISE)
    expected = []
    for step in range(1, len(losses)):
        before = losses[max(step - window, 0) : step]
        expected.append((losses[step] - sum(before) / len(before)) / noise)
    np.testing.assert_allclose(z_scores(losses, window), expected, rtol=1e-6, atol=1e-6)
