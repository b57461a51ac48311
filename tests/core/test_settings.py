from pathlib import Path

import pytest

from plumbline.core.errors import UserError
from plumbline.core.settings import Settings, UserPath, UserText, hint, validated


class Inner(Settings):
    hidden: int = 64


class Outer(Settings):
    seed: int
    training: Inner = Inner()
    blocks: list[Inner] = []
    maybe: Inner | None = None
    named: dict[str, Inner] = {}
    layers: dict[str, list[Inner]] = {}


def test_unknown_key_is_refused_with_its_path_and_the_known_keys():
    with pytest.raises(UserError, match=r"config: training\.hiden: no such key; did you mean hidden\?$"):
        validated(Outer, {"seed": 0, "training": {"hiden": 3}}, "config")


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"blocks": [{"hiden": 3}]}, "blocks.0"),
        ({"maybe": {"hiden": 3}}, "maybe"),
        ({"named": {"a": {"hiden": 3}}}, "named.a"),
        ({"layers": {"a": [{"hiden": 3}]}}, "layers.a.0"),
    ],
)
def test_known_keys_are_told_inside_lists_dicts_and_optional_blocks(values, path):
    with pytest.raises(UserError, match=rf"{path}\.hiden: no such key; did you mean hidden\?$"):
        validated(Outer, {"seed": 0, **values}, "config")


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (["name", "goal"], "; did you mean goal? (1 other key is known here)"),
        (["name", "goal", "unit"], "; did you mean goal? (2 other keys are known here)"),
        (["goal"], "; did you mean goal?"),
        (["name"], " (known here: name)"),
        ([], ""),
    ],
)
def test_the_hint_for_a_misspelt_key_counts_the_others_and_says_nothing_where_none_is_known(known, said):
    assert hint("gaol", known) == said


@pytest.mark.parametrize(
    ("given", "read"),
    [("~/a b", "{home}/a b"), ("~", "{home}"), ("~other/a", "~other/a"), ("/a/~/b", "/a/~/b"), ("hub/id", "hub/id")],
)
def test_a_leading_tilde_is_the_home_folder_and_no_other(given, read):
    class Places(Settings):
        text: UserText
        path: UserPath

    found = validated(Places, {"text": given, "path": given}, "config")
    assert found.text == read.format(home=Path.home())
    assert found.path == Path(found.text)


def test_every_mistake_is_named_in_one_line():
    with pytest.raises(UserError) as caught:
        validated(Outer, {"training": {"hidden": "many"}}, "config")
    message = str(caught.value)
    assert "seed: missing" in message
    assert "training.hidden" in message
    assert "'many'" in message
    assert "\n" not in message


def test_valid_values_are_read():
    assert validated(Outer, {"seed": 1, "training": {"hidden": 3}}, "config").training.hidden == 3
