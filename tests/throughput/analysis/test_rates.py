import numpy as np
import pytest

from plumbline.throughput.analysis.rates import Ratio, decoded, mean_ratio, rate, rate_interval, rate_ratio, timed
from throughput.grid_records import failed, timed_batch, trial


def batches(seconds: list[float], tokens: float = 10.0) -> np.ndarray:
    return np.array([[value, tokens] for value in seconds])


def test_rate_is_total_tokens_over_total_seconds() -> None:
    assert rate(batches([1.0, 3.0])) == pytest.approx(20 / 4)


def test_failed_batches_and_those_that_do_not_count_are_not_timed() -> None:
    some = [timed_batch(1.0, 8), timed_batch(9.0, 0, ok=False), timed_batch(2.0, 8, counts=False), timed_batch(3.0, 8)]
    assert timed(trial(batches=some)).tolist() == [[1.0, 8.0], [3.0, 8.0]]
    assert timed(failed()).shape == (0, 2)


def test_ratio_of_constant_batches_is_exact_and_has_no_width() -> None:
    ratio = rate_ratio(batches([0.5] * 5), batches([1.0] * 7))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_interval_of_a_ratio_agrees_with_normal_theory() -> None:
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


def test_sides_are_resampled_independently() -> None:
    same = batches([0.9, 1.0, 1.1, 1.05])
    ratio = rate_ratio(same, same)
    assert ratio.value == 1
    assert ratio.low < 0.97 < 1.03 < ratio.high


def test_mean_of_ratios_is_geometric() -> None:
    one, two, eight = (batches([1 / value] * 3) for value in (1.0, 2.0, 8.0))
    assert mean_ratio([(two, one), (eight, one)]).value == pytest.approx(4)


def test_one_batch_gives_no_interval_and_no_direction() -> None:
    ratio = rate_ratio(batches([1.0]), batches([1.0, 1.1]))
    assert np.isnan([ratio.low, ratio.high]).all()
    assert ratio.direction() == "unknown"
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


def test_interval_of_a_rate_agrees_with_normal_theory() -> None:
    gaps = np.random.default_rng(1).normal(1.0, 0.05, 600)
    low, high = rate_interval(decoded(trial(batch=4, inter_token_seconds=gaps.tolist())))
    spread = 1.96 * gaps.std(ddof=1) / np.sqrt(600) / gaps.mean()
    centre = np.log(4 / gaps.mean())
    assert np.log([low, high]) == pytest.approx([centre - spread, centre + spread], abs=4e-4)
    assert np.isnan(rate_interval(decoded(failed("timeout", "base", "lean", 4)))).all()
