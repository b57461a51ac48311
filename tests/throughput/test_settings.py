import pytest
from pydantic import ValidationError

from plumbline.throughput.settings import ThroughputSettings, user_supplied

MODEL = {"source": "config"}


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"template": "models/llama"}, "must contain {ratio}"),
        ({"template": "models/{ratio}/llama"}, "must contain {ratio}"),
        ({"template": "models/{model}-{ratio}"}, "letters, digits and ._-"),
        ({"paths": ["."]}, "must name the variant"),
        ({"paths": ["../.."]}, "must name the variant"),
        ({"paths": ["my models/a b"]}, "'a b', must name"),
        ({"paths": ["a/same", "b/same"]}, "two of them would be named 'same'"),
        ({"paths": ["elsewhere/base"]}, "two of them would be named 'base'"),
        ({"paths": ["mine/plain-0.4"], "ratios": [1.0, 0.4]}, "two of them would be named 'plain-0.4'"),
        ({"paths": ["mine/llama-0.4"], "template": "llama-{ratio}", "ratios": [0.4]}, "be named 'llama-0.4'"),
    ],
)
def test_variant_without_a_unique_name_is_refused(variants, message):
    with pytest.raises(ValidationError) as refused:
        ThroughputSettings.model_validate({"model": MODEL, "variants": variants})
    assert message in str(refused.value)


def test_two_engines_with_one_name_are_refused():
    grid = [{"batch": [1], "engines": ["lean"]}, {"batch": [2], "engines": ["my_lab.engines:lean"]}]
    with pytest.raises(ValidationError, match="two of them would be named 'lean'"):
        ThroughputSettings.model_validate({"model": MODEL, "grid": grid})


def test_template_is_filled_with_each_ratio_below_one():
    variants = {"template": "models/llama-7b-{ratio}", "ratios": [1.0, 0.8, 0.25], "paths": ["other/mine"]}
    settings = ThroughputSettings.model_validate({"model": MODEL, "variants": variants})
    assert {name: (str(folder), ratio) for name, (folder, ratio) in user_supplied(settings).items()} == {
        "llama-7b-0.8": ("models/llama-7b-0.8", 0.8),
        "llama-7b-0.25": ("models/llama-7b-0.25", 0.25),
        "mine": ("other/mine", None),
    }


@pytest.mark.parametrize(("written", "read"), [(True, "on"), (False, "off"), ("on", "on"), ("auto", "auto")])
def test_yaml_switches_without_quotes_are_read_as_written(written, read):
    assert ThroughputSettings.model_validate({"autotune": {"compile": written}}).autotune.compile == read
