import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lr_sweep.sweep_records import INITIAL, RATES, sweep, trial, unfinished
from plumbline.lr_sweep.analysis.sweep import Sweep, analyse, edge_of_stability, lr_sensitivity, optimum, sweep_of


def bowl(rates: np.ndarray, centre: float, seeds: int = 3, noise: float = 0.0) -> Sweep:
    """Losses on a parabola in log rate whose least value is at `centre`."""
    rng = np.random.default_rng(0)
    losses = 3 + 0.2 * np.log(rates / centre)[:, None] ** 2 + rng.normal(0, noise, (len(rates), seeds))
    return Sweep(
        rates=rates,
        losses=losses,
        initial=np.full(losses.shape, INITIAL),
        classes=np.full(losses.shape, "converged", dtype="<U12"),
    )


def graded(*classes: str) -> Sweep:
    """One seed; rates 1, 2, 4, ...; of the first letters of their classes, losses rising with the rate."""
    words = {"c": "converged", "s": "spiked", "p": "plateaued", "d": "diverged", "-": ""}
    names = np.array([[words[letter]] for letter in classes], dtype="<U12")
    losses = np.where(names == "", np.nan, 3 + 0.1 * np.arange(len(classes))[:, None])
    losses = np.where(names == "plateaued", 5.0, np.where(names == "diverged", np.inf, losses))
    return Sweep(
        rates=2.0 ** np.arange(len(classes)), losses=losses, initial=np.full(losses.shape, INITIAL), classes=names
    )


@given(st.floats(-6, -1), st.lists(st.floats(0.3, 3), min_size=6, max_size=6))
def test_optimum_of_a_parabola_is_its_vertex_on_any_grid(centre: float, gaps: list[float]) -> None:
    rates = np.exp(centre - sum(gaps[:3]) + np.cumsum([0.0, *gaps]) + 0.1)
    assert optimum(bowl(rates, math.exp(centre))).value == pytest.approx(math.exp(centre), rel=1e-6)


def test_optimum_agrees_with_a_polynomial_fitted_through_three_means() -> None:
    sweep = bowl(np.array(RATES), 0.04, seeds=4, noise=0.02)
    means = sweep.losses.mean(axis=1)
    best = int(means.argmin())
    square, slope, _ = np.polyfit(np.log(sweep.rates[best - 1 : best + 2]), means[best - 1 : best + 2], 2)
    assert optimum(sweep).value == pytest.approx(math.exp(-slope / (2 * square)))


@given(st.floats(-6.5, 1.5), st.integers(1, 7), st.floats(0, 0.2))
def test_optimum_is_claimed_no_closer_than_the_neighbours_of_the_best_rate(
    centre: float, seeds: int, noise: float
) -> None:
    sweep = bowl(np.array(RATES), math.exp(centre), seeds=seeds, noise=noise)
    value, best = optimum(sweep), int(sweep.losses.mean(axis=1).argmin())
    if 0 < best < len(RATES) - 1:
        assert not value.low > RATES[best - 1]
        assert not value.high < RATES[best + 1]


def test_seeds_whose_best_rates_differ_widen_where_the_optimum_may_lie() -> None:
    sweep = bowl(np.array(RATES), 0.04, seeds=2)
    assert (optimum(sweep).low, optimum(sweep).high) == (0.01, 0.1)
    sweep.losses[5, 1] = 2.5  # this seed likes 0.3 best
    assert (optimum(sweep).low, optimum(sweep).high) == (0.01, 1.0)


def test_spread_of_the_parabola_narrows_as_seeds_agree_and_is_no_bound_of_the_optimum() -> None:
    noisy, quiet = (optimum(bowl(np.array(RATES), 0.04, seeds=6, noise=noise)) for noise in (0.05, 0.005))
    for value in (noisy, quiet):
        assert value.low <= value.seeds_low <= value.value <= value.seeds_high <= value.high
    assert quiet.seeds_high / quiet.seeds_low < noisy.seeds_high / noisy.seeds_low


def test_few_seeds_have_the_range_of_what_each_gives_alone() -> None:
    swept = sweep_of(sweep(seeds=(0, 1, 2), kinds={}))
    alone = [lr_sensitivity(sweep_of(sweep(seeds=(seed,), kinds={}))).value for seed in (0, 1, 2)]
    value = lr_sensitivity(swept)
    assert (value.low, value.high) == (pytest.approx(min(*alone, value.value)), pytest.approx(max(*alone)))


def test_single_seed_gives_no_interval() -> None:
    result = analyse(sweep_of(sweep(seeds=(0,))))
    assert math.isfinite(result.optimum.value)
    assert math.isnan(result.optimum.seeds_low)
    assert math.isnan(result.sensitivity.high)


@pytest.mark.parametrize("centre", [1e-4, 1e3])
def test_optimum_outside_the_grid_is_the_end_of_it_and_not_extrapolated(centre: float) -> None:
    swept = bowl(np.array(RATES), centre)
    result = analyse(swept)
    assert math.isnan(result.optimum.value)
    assert math.isnan(result.optimum.low if centre < 1 else result.optimum.high)
    assert not result.bracketed


@pytest.mark.parametrize(
    ("classes", "last", "first"),
    [
        ("cccd", 4, 8),
        ("csccd", 8, 16),
        ("ccpd", 4, 8),  # a plateau learns nothing, and does not diverge
        ("pccd", 4, 8),  # too low a rate to learn is no edge
        ("ppd", 2, 4),
        ("dccd", 4, 8),
        ("ccdcd", 2, 4),  # a stable rate beyond a diverged one is luck
        ("cc-d", 2, 8),  # nothing is known of a trial without a loss
    ],
)
def test_edge_lies_between_the_last_rate_that_did_not_diverge_and_the_first_that_did(
    classes: str, last: float, first: float
) -> None:
    edge = edge_of_stability(graded(*classes))
    assert (edge.last_stable, edge.first_diverged) == (last, first)
    assert edge.rate == pytest.approx(math.sqrt(last * first))


@pytest.mark.parametrize("classes", ["ccc", "ccp", "dcc", "ddd", "---"])
def test_edge_is_not_reached_where_none_above_the_best_diverged(classes: str) -> None:
    assert not edge_of_stability(graded(*classes)).reached


def test_one_diverged_seed_makes_a_rate_unstable() -> None:
    records = sweep()
    records[13] = trial(1.0, 1, "diverged")
    edge = edge_of_stability(sweep_of(records))
    assert (edge.last_stable, edge.first_diverged) == (0.3, 1.0)


def test_sensitivity_is_the_mean_capped_loss_above_the_best() -> None:
    records = sweep()
    per_rate = []
    for rate in RATES:
        losses = [r.final_validation_loss for r in records if r.rate == rate]
        per_rate.append(sum(min(x, INITIAL) if math.isfinite(x) else INITIAL for x in losses) / len(losses))
    expected = sum(per_rate) / len(per_rate) - min(per_rate)
    value = lr_sensitivity(sweep_of(records))
    assert value.value == pytest.approx(expected)
    assert value.low <= value.value <= value.high


def test_flat_losses_have_no_sensitivity() -> None:
    assert lr_sensitivity(sweep_of(sweep(kinds={}, loss=3.5))).value == pytest.approx(0)


def test_nothing_is_claimed_when_all_diverged() -> None:
    result = analyse(sweep_of(sweep(kinds=dict.fromkeys(RATES, "diverged")))).to_json()
    numbers: list[Any] = [result["best_rate"], result["edge"]["rate"], result["sensitivity"]["value"]]
    assert numbers == [None] * 3
    assert not result["bracketed"]


def test_seeds_that_a_rate_lacks_do_not_shift_the_others() -> None:
    records = [*sweep()[:-1], unfinished(10.0, 1)]
    swept = sweep_of(records)
    assert np.isnan(swept.losses).sum() == 1
    assert swept.losses[3, 1] == next(r.final_validation_loss for r in records if (r.rate, r.seed) == (0.03, 1))
    assert analyse(swept).best_rate == analyse(sweep_of(sweep())).best_rate
