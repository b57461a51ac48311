import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.core.plan.target import Content, Target, canonical, differences

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def target(stage="features", needs=(), **settings):
    return Target(study="ablation", stage=stage, name="x", output="x", settings=settings, reads={"x": needs})


@given(st.dictionaries(st.text(), VALUES))
def test_canonical_does_not_depend_on_the_order_of_keys(values):
    assert canonical(values) == canonical(dict(reversed(values.items())))


@given(VALUES)
def test_canonical_can_be_read_back(value):
    assert json.loads(canonical(value)) == value


def test_canonical_refuses_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(math.nan)


def test_swapped_values_give_another_spec():
    assert target(a=1, b=2).spec != target(a=2, b=1).spec


def test_a_change_upstream_changes_every_spec_downstream():
    first, second = target(seed=0), target(seed=1)
    assert target("train", needs=(first,)).spec != target("train", needs=(second,)).spec


@given(VALUES)
def test_equal_values_do_not_differ(value):
    assert differences(value, json.loads(canonical(value))) == []


def test_differences_name_the_field_and_both_values():
    old, new = {"training": {"hidden": 64}, "seed": 0}, {"training": {"hidden": 128}, "seed": 0}
    assert differences(old, new) == ["training.hidden: 64 → 128"]
    assert differences({"code": {}}, {"code": {"m": "1a"}}) == ['code.m: nothing → "1a"']


def test_spec_depends_on_a_content_and_not_on_its_history():
    first, second = Content(target(seed=0)), Content(target(seed=1))
    readers = target("train", needs=(first,)), target("train", needs=(second,))
    first.sha256 = second.sha256 = "a"
    assert readers[0].spec == readers[1].spec
    second.sha256 = "b"
    assert readers[0].spec != readers[1].spec


def test_spec_of_what_reads_a_reader_follows_the_content_too():
    content = Content(target(), "a")
    reader = target("train", needs=(target(needs=(content,)),))
    before = reader.spec
    content.sha256 = "b"
    assert reader.spec != before


def test_inputs_are_the_files_of_what_is_read_by_name():
    made = {"study": "ablation", "stage": "features", "settings": {}}
    one = Target(**made, name="a", output="a.npy", beside={"seconds": ["a.json"]})
    two = Target(**made, name="b", output="../b.npy", optional=True)
    reader = Target("ablation", "train", "x", "x", {}, reads={"features": [one, two], "shards": []})
    found = {"features": ["out/ablation/a.npy"], "seconds": ["out/ablation/a.json"], "shards": []}
    assert reader.inputs(Path("out")) == found
    assert reader.inputs(Path("out"), added={"b"}) == found | {"features": ["out/ablation/a.npy", "out/b.npy"]}
