import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.lr_sweep.settings import StabilitySettings
from plumbline.lr_sweep.training.stability import LEAST_STD, Stability, classify, z_scores

SETTINGS = StabilitySettings(window=8, spike_z=6.0, plateau_margin=0.01)
ENTROPY = 5.0


def falling(steps=60, start=6.0, end=3.0):
    noise = np.random.default_rng(0).normal(scale=0.02, size=steps)
    return list(np.linspace(start, end, steps) + noise)


def verdict(losses, final=3.0, initial=6.0):
    return classify(losses, initial, final, ENTROPY, SETTINGS)


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


def test_run_shorter_than_the_window_has_no_z_score():
    found = verdict(falling(steps=8))
    assert found.stability == Stability.CONVERGED
    assert math.isnan(found.largest_z)


@given(st.lists(st.floats(0, 50), min_size=1, max_size=40), st.integers(1, 12))
def test_z_scores_are_those_of_a_plain_loop(losses, window):
    expected = []
    for step in range(window, len(losses)):
        before = losses[step - window : step]
        mean = sum(before) / window
        deviation = math.sqrt(sum((loss - mean) ** 2 for loss in before) / window)
        expected.append((losses[step] - mean) / max(deviation, LEAST_STD))
    np.testing.assert_allclose(z_scores(losses, window), expected, rtol=1e-6, atol=1e-6)
