"""Settings on the command line: checked by name, and laid over the config as a file would be."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from house import PROJECT
from plumbline import config as configuration
from plumbline.commands.overrides import keys, merged, split
from plumbline.core.errors import UserError

CONFIG = [PROJECT / "config.yaml"]


def test_an_override_says_what_the_same_lines_in_a_configfile_say(tmp_path):
    lines = {
        "ablation": {"runs": 3, "zoo": {"adapter": {"steps": 7}}},
        "sweep": {"digits_mlp": {"seeds": [0, 1]}},
        "device": "cpu",
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(lines))
    words = ["ablation.runs=3", "ablation.zoo.adapter.steps=7", "sweep.digits_mlp.seeds=[0,1]", "device=cpu"]
    assert configuration.check(merged(CONFIG, words)) == configuration.load([*CONFIG, tmp_path / "mine.yaml"])


def test_a_mapping_is_merged_and_a_list_is_replaced():
    values = merged(CONFIG, ["ablation.training={hidden: 8}", "ablation.layers=[text_only]"])["ablation"]
    assert values["training"]["hidden"] == 8
    assert "learning_rate" in values["training"]
    assert values["layers"] == ["text_only"]


def test_a_number_names_an_entry_of_a_list_and_the_others_stay():
    before = configuration.read(CONFIG)["throughput"]["grid"]
    after = merged(CONFIG, ["throughput.grid.0.batch=[2]"])["throughput"]["grid"]
    assert after == [before[0] | {"batch": [2]}, *before[1:]]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("ablation.rnus=3", r"^ablation\.rnus: no such key; did you mean ablation\.runs\?$"),
        ("ablatoin.runs=3", r"^ablatoin\.runs: no such key; did you mean ablation\.runs\?$"),
        ("runs=3", r"^runs: no such key; did you mean ablation\.runs\?$"),
        ("sweep.digit_mlp.seeds=[0]", r"^sweep\.digit_mlp\.seeds: no such key; did you mean sweep\.digits_mlp\?$"),
        ("sweep.digits_mlp.seds=[0]", r"did you mean sweep\.digits_mlp\.seeds\?"),
        ("throughput.grid.0.batches=[0]", r"did you mean throughput\.grid\.0\.batch\?"),
        ("throughput.grid.9.batch=[0]", r"throughput\.grid is a list of 3; name one by its number from 0"),
        ("ablation.runs.x=1", r"ablation\.runs has no keys of its own"),
        ("xyzzy=1", r"no such key \(known here: results, seed"),
        ("ablation.runs=", r"ablation\.runs: has no value; write ablation\.runs=null"),
        ("ablation.layers=[a", r"ablation\.layers: '\[a' is not valid YAML"),
    ],
)
def test_a_wrong_word_is_one_line_that_names_the_nearest_key(word, said):
    with pytest.raises(UserError, match=said) as error:
        merged(CONFIG, [word])
    assert "\n" not in str(error.value)


def test_every_key_of_the_config_can_be_named():
    """The keys of the schema, walked independently, down to the first name that a user gives."""
    schema = configuration.Config.model_json_schema()

    def walk(block, above=""):
        for name, described in block.get("properties", {}).items():
            yield f"{above}{name}"
            options = [described, *described.get("anyOf", [])]
            for reference in (option["$ref"] for option in options if "$ref" in option):
                yield from walk(schema["$defs"][reference.rpartition("/")[2]], f"{above}{name}.")

    named = list(walk(schema))
    assert len(named) > 100
    assert [".".join(map(str, keys(name, {}))) for name in named] == named


def test_a_name_of_the_users_may_have_dots():
    values = {"sweep": {"v1.2": {"seeds": [0]}, "v1": {"seeds": [0]}}}
    assert keys("sweep.v1.2.seeds", values) == ["sweep", "v1.2", "seeds"]
    assert keys("sweep.v1.seeds", values) == ["sweep", "v1", "seeds"]


def test_a_path_that_holds_an_equals_sign_is_a_target():
    target = "results/sweep/digits_mlp/trials/learning_rate=0.001__width=16/seed0.json"
    assert split(["sweep", target, "ablation.runs=3"]) == (["sweep", target], ["ablation.runs=3"])


TEXT = st.text(st.characters(max_codepoint=0xD7FF), max_size=8)  # above, JSON has escapes that YAML does not know
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(VALUES, max_size=4))
def test_a_value_written_as_json_arrives_as_it_was(value):
    text = json.dumps(value)
    assert merged([], [f"ablation.layers={text}"]) == {"ablation": {"layers": value}}
