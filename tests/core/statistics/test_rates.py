import numpy as np
import pytest

from plumbline.core.statistics.bootstrap import bootstrap_interval
from plumbline.core.statistics.rates import (
    Ratio,
    block_length,
    rate,
    rate_interval,
    rate_ratio,
    ratio_over_rounds,
)


def batches(seconds: list[float], tokens: float = 10.0) -> np.ndarray:
    return np.array([[value, tokens] for value in seconds])


def test_rate_is_all_tokens_over_all_seconds_and_no_mean_of_rates() -> None:
    assert rate(batches([1.0, 3.0])) == pytest.approx(20 / 4)


def test_ratio_of_constant_batches_is_exact_and_has_no_width() -> None:
    ratio = rate_ratio(batches([0.5] * 5), batches([1.0] * 7))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_interval_of_a_ratio_is_that_of_normal_theory_for_many_batches() -> None:
    rng = np.random.default_rng(0)
    first, second = (batches(list(rng.normal(1.0, 0.05, 200))) for _ in range(2))
    ratio = rate_ratio(first, second)
    spread = np.sqrt(sum(side[:, 0].var(ddof=1) / 200 / side[:, 0].mean() ** 2 for side in (first, second)))
    centre = np.log(second[:, 0].mean() / first[:, 0].mean())
    assert np.log(ratio.value) == pytest.approx(centre)
    assert np.log([ratio.low, ratio.high]) == pytest.approx([centre - 1.96 * spread, centre + 1.96 * spread], abs=5e-4)


def test_resampled_batches_keep_their_own_tokens() -> None:
    first = np.array([[1.0, 10.0], [2.0, 20.0], [5.0, 50.0]])  # 10 tokens per second in every batch
    ratio = rate_ratio(first, batches([1.0, 1.0], 5.0))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_sides_are_resampled_apart_so_that_the_same_batches_still_have_an_interval() -> None:
    same = batches([0.9, 1.0, 1.1, 1.05])
    ratio = rate_ratio(same, same)
    assert ratio.value == 1
    assert ratio.low < 0.97 < 1.03 < ratio.high


def test_one_batch_gives_no_interval_and_no_direction() -> None:
    ratio = rate_ratio(batches([1.0]), batches([1.0, 1.1]))
    assert np.isnan([ratio.low, ratio.high]).all()
    assert ratio.direction(0.03) == "unknown"
    assert ratio.as_json()["low"] is None


@pytest.mark.parametrize(
    ("low", "high", "direction"),
    [
        (1.031, 1.2, "faster"),
        (1.029, 1.2, "unclear"),
        (0.8, 0.970, "slower"),
        (0.8, 0.9715, "unclear"),  # 1 ÷ 1.03 is 0.9709: what 1.029 is from the other side
        (0.99, 1.01, "equal"),
        (0.972, 1.029, "equal"),
        (0.5, 2.0, "unclear"),  # noise is no proof that there is no difference
    ],
)
def test_direction_needs_the_whole_interval_beyond_the_threshold(low: float, high: float, direction: str) -> None:
    assert Ratio(value=1.0, low=low, high=high).direction(0.03) == direction


def test_interval_of_a_rate_is_that_of_normal_theory_for_many_steps() -> None:
    gaps = np.random.default_rng(1).normal(1.0, 0.05, 600)
    low, high = rate_interval(batches(list(gaps), 4.0))
    spread = 1.96 * gaps.std(ddof=1) / np.sqrt(600) / gaps.mean()
    centre = np.log(4 / gaps.mean())
    assert np.log([low, high]) == pytest.approx([centre - spread, centre + spread], abs=4e-4)
    assert np.isnan(rate_interval(np.empty((0, 2)))).all()


def test_interval_of_equal_batches_is_that_of_their_mean_seconds_turned_over() -> None:
    seconds = np.random.default_rng(1).lognormal(0, 0.3, 30)
    low, high = bootstrap_interval(seconds)
    assert rate_interval(batches(list(seconds), 64.0)) == pytest.approx((64 / high, 64 / low), rel=1e-12)


def test_rate_interval_holds_the_true_rate_about_as_often_as_it_says() -> None:
    """Batches of unequal work whose seconds are skewed: 10 units a second in the long run."""
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(500):
        work = rng.integers(5, 16, 30).astype(float)
        seconds = work / 10 * rng.gamma(4, 1 / 4, 30)
        low, high = rate_interval(np.stack([seconds, work], axis=1))
        covered.append(low <= 10 <= high)
    assert 0.90 < np.mean(covered) < 0.97


def rounds(rng: np.random.Generator, n: int, rho: float = 0.0) -> np.ndarray:
    """Logarithms of spread 0.03 whose neighbours correlate with `rho`."""
    noise = rng.normal(size=n)
    for index in range(1, n):
        noise[index] = rho * noise[index - 1] + (1 - rho**2) ** 0.5 * noise[index]
    return 0.03 * noise


@pytest.mark.parametrize(("rho", "least"), [(0.0, 0.91), (0.5, 0.85)])
def test_ratio_over_rounds_holds_the_truth_although_whole_rounds_are_slow(rho: float, least: float) -> None:
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(200):
        slow = rng.lognormal(0, 0.5, 40)  # the machine, in both sides of a round
        ratio = ratio_over_rounds(1.2 * slow * np.exp(rounds(rng, 40, rho)), slow)
        covered.append(ratio.low <= 1.2 <= ratio.high)
        assert ratio.high - ratio.low < 0.1
    assert least < np.mean(covered) < 0.985


@pytest.mark.parametrize(("known", "least", "most"), [(True, 0.93, 1.0), (False, 0.0, 0.75)])
def test_processes_that_each_have_a_speed_of_their_own_are_the_replicates(
    known: bool, least: float, most: float
) -> None:
    rng = np.random.default_rng(7)
    processes = np.repeat(np.arange(4), 20)
    covered = []
    for _ in range(200):
        dealt = rng.normal(0, 0.02, 4)[processes]  # the same for all rounds of a process
        ratio = ratio_over_rounds(np.exp(dealt + rounds(rng, 80)), np.ones(80), processes if known else None)
        covered.append(ratio.low <= 1 <= ratio.high)
    assert least <= np.mean(covered) <= most


def noise_of(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Logarithms of rounds: normal; with heavy tails; or of turns of which a neighbour slows one in seven a lot."""
    if kind == "normal":
        return 0.05 * rng.normal(size=size)
    if kind == "heavy":
        return 0.03 * rng.standard_t(2, size=size)
    slowed = [(rng.random(size) < 1 / 7) * rng.exponential(0.25, size) for _ in range(2)]
    return 0.03 * rng.normal(size=size) + slowed[0] - slowed[1]


@pytest.mark.parametrize("dealt", [0.0, 0.015])
@pytest.mark.parametrize("kind", ["normal", "heavy", "busy"])
def test_six_processes_of_five_rounds_give_an_interval_that_covers_and_is_narrow(kind: str, dealt: float) -> None:
    """With the bootstrap of so few rounds it would cover 98% to 100%, and twice as wide where a neighbour is busy."""
    rng = np.random.default_rng(11)
    processes = np.repeat(np.arange(6), 5)
    covered, widths = [], []
    for _ in range(2000):
        logs = noise_of(kind, rng, 30) + rng.normal(0, dealt, 6)[processes]
        ratio = ratio_over_rounds(1.6 * np.exp(logs), np.ones(30), processes)
        covered.append(ratio.low <= 1.6 <= ratio.high)
        widths.append(ratio.half_width)
    assert 0.93 <= np.mean(covered) <= 0.975
    assert np.median(widths) < 0.035


def test_a_neighbour_that_slows_one_side_moves_the_ratio_a_third_as_far_as_it_moves_the_mean() -> None:
    rng = np.random.default_rng(12)
    logs = 0.03 * rng.normal(size=(500, 30)) + (rng.random((500, 30)) < 1 / 7) * rng.exponential(0.25, (500, 30))
    processes = np.repeat(np.arange(6), 5)
    moved = np.mean([np.log(ratio_over_rounds(np.exp(each), np.ones(30), processes).value) for each in logs])
    assert 0 < moved < logs.mean() / 3


def test_each_process_counts_alike_however_many_rounds_it_had() -> None:
    processes = np.array([0] * 30 + [1] * 3)
    values = np.where(processes == 0, 1.0, 1.21)
    assert ratio_over_rounds(values, np.ones(33), processes).value == pytest.approx(1.1)


def test_ratio_over_rounds_turns_over_with_its_sides_and_ignores_one_bad_round() -> None:
    rng = np.random.default_rng(5)
    first, second = np.exp(rounds(rng, 21)), np.exp(rounds(rng, 21))
    one, two = ratio_over_rounds(first, second), ratio_over_rounds(second, first)
    assert one.value == pytest.approx(1 / two.value) == pytest.approx(float(np.median(first / second)))
    assert (one.low, one.high) == pytest.approx((1 / two.high, 1 / two.low))
    first[3] *= 1000
    assert ratio_over_rounds(first, second).high < 1.05


def test_rounds_are_drawn_in_blocks_only_where_neighbours_are_correlated() -> None:
    rng = np.random.default_rng(6)
    independent = [block_length(rounds(rng, 60)) for _ in range(200)]
    correlated = [block_length(rounds(rng, 200, 0.8)) for _ in range(50)]
    assert np.mean(np.array(independent) == 1) > 0.9
    assert 10 < np.median(correlated) <= 50  # by the formula 18 for ρ = 0.8
    assert block_length(np.array([1.0, -1.0] * 20)) == 1  # alternating: the mean varies less, not more
    assert block_length(np.ones(20)) == 1
    assert block_length(np.linspace(0, 1, 40)) == 10


def test_one_round_has_no_interval_and_rounds_without_a_figure_are_refused() -> None:
    assert np.isnan(ratio_over_rounds([2.0], [1.0]).low)
    assert ratio_over_rounds([2.0], [1.0]).value == pytest.approx(2)
    with pytest.raises(ValueError, match="needs positive values"):
        ratio_over_rounds([1.0, 0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="one length"):
        ratio_over_rounds([1.0, 1.0], [1.0])
