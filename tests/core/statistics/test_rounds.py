import pytest

from plumbline.core.statistics.rates import Ratio
from plumbline.core.statistics.rounds import Verdict, verdict

CLEAN = Ratio(value=1.0, low=0.995, high=1.005)
BIASED = Ratio(value=1.02, low=1.01, high=1.03)
BROKEN = Ratio(value=1.06, low=1.04, high=1.08)
"""Controls: A against A."""


@pytest.mark.parametrize(
    ("low", "high", "control", "expected"),
    [
        (1.03, 1.05, CLEAN, Verdict.FASTER),
        (0.92, 0.95, CLEAN, Verdict.SLOWER),
        (0.99, 1.01, CLEAN, Verdict.NO_DIFFERENCE),
        (1.005, 1.02, CLEAN, Verdict.NO_DIFFERENCE),  # certain, but too small to matter
        (0.97, 1.06, CLEAN, Verdict.INCONCLUSIVE),
        (1.015, 1.05, BIASED, Verdict.INCONCLUSIVE),  # A alone reached 1.02 against itself
        (1.05, 1.10, BIASED, Verdict.FASTER),
        (7.0, 9.0, BROKEN, Verdict.INCONCLUSIVE),  # where A beats itself by more than 3%, nothing is said
    ],
)
def test_verdict_needs_an_interval_that_is_clear_of_what_the_control_shows(
    low: float, high: float, control: Ratio, expected: Verdict
) -> None:
    assert verdict(Ratio(value=(low * high) ** 0.5, low=low, high=high), control) is expected
    if control is CLEAN:
        turned = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
        back = Ratio(value=(low * high) ** -0.5, low=1 / high, high=1 / low)
        assert verdict(back, control) is turned.get(expected, expected)
