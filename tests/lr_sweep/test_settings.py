import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.core.errors import UserError
from plumbline.core.settings import validated
from plumbline.lr_sweep.plan import plan
from plumbline.lr_sweep.settings import LrSweepSettings, candidate_rates


def settings(**values: Any) -> LrSweepSettings:
    return validated(LrSweepSettings, values, "lr_sweep")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rates": [0.01, 0]}, "learning_rates.1: Input should be greater than 0"),
        ({"learning_rates": [0.01, -1]}, "learning_rates.1: Input should be greater than 0"),
        ({"learning_rates": [0.01, math.nan]}, "learning_rates.1: Input should be a finite number"),
        ({"learning_rates": [0.01, math.inf]}, "learning_rates.1: Input should be a finite number"),
        ({"learning_rates": [0.01, "fast"]}, "learning_rates.1: Input should be a valid number"),
        ({"learning_rates": [0.01, "0.01"]}, "learning_rates: 0.01 is named twice"),
        ({"learning_rates": [0.001, 0.0010000001]}, "0.001 and 0.0010000001 are less than 1% apart"),
        ({"learning_rates": [1e-300, 1e300]}, "learning rates must be between 1e-12 and 1e.12"),
        ({"learning_rates": []}, "learning_rates: List should have at least 1 item"),
        ({"seeds": [0, 0]}, "seeds: 0 is named twice"),
        ({"seeds": [10**20]}, "seeds.0: Input should be less than 2147483648"),
        ({"model": {"heads": 5}}, r"heads \(5\) must divide width \(64\) into an even head size"),
        ({"model": {"vocabulary": 256}}, "model.vocabulary: Input should be greater than or equal to 257"),
        ({"corpus": {"source": "files"}}, "files: missing; source 'files' needs at least one glob"),
        ({"corpus": {"files": ["a.txt"]}}, "files: set, but source is 'pydoc'; set source: files"),
        ({"corpus": {"hub": {"id": "a/b"}}}, "hub: set, but source is 'pydoc'; set source: hub"),
        ({"corpus": {"source": "hub", "hub": {"id": ""}}}, "corpus.hub.id: String should have at least 1 character"),
        ({"training": {"precision": "yes"}}, "training.precision: Input should be 'auto', 'on' or 'off'"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(**values)


def test_switches_may_be_written_without_quotes_which_yaml_reads_as_booleans() -> None:
    training = settings(training={"precision": True, "compile": False, "fused": "on"}).training
    assert (training.precision, training.compile, training.fused, training.tf32) == ("on", "off", "on", "auto")


@given(
    st.floats(1e-12, 10),
    st.lists(st.floats(1.0101, 20), max_size=6),
    st.integers(0, 8),
)
def test_no_two_trials_share_a_name_and_rates_to_add_lie_outside_the_grid(
    lowest: float, ratios: list[float], most: int
) -> None:
    rates = [lowest]
    for ratio in ratios:
        rates.append(rates[-1] * ratio)
    asked = settings(learning_rates=rates[::-1], extend_at_most=most, seeds=[0])
    names = [target.name for target in plan(asked, 0, {}, "cpu") if target.stage == "train"]
    assert len(names) == len(set(names)) == len(rates) + 2 * most
    below, above = candidate_rates(asked)
    assert [0, *below[::-1], *rates, *above] == sorted({0, *below, *rates, *above})
