"""The config, its schema, the presets and the pins agree with each other."""

import json
from pathlib import Path

import pytest
import yaml

from plumbline import config as configuration
from plumbline.core.errors import UserError

ROOT = Path(__file__).parents[1]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())


def test_schema_is_current():
    written = json.loads((ROOT / "workflow" / "config.schema.json").read_text())
    assert written == configuration.Config.model_json_schema(), "run `make schema`"


def test_every_key_has_its_meaning_in_the_schema():
    schema = configuration.Config.model_json_schema()
    blocks = {"Config": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, block in blocks.items()
        for key, described in block.get("properties", {}).items()
        if not described.get("description")
    ]
    assert silent == []


def test_config_points_editors_to_the_schema():
    first = (ROOT / "config.yaml").read_text().splitlines()[0]
    assert (ROOT / first.partition("$schema=")[2]).is_file()


def test_default_config_states_what_an_empty_one_means():
    """config.yaml shows the main keys; none of them says something else than the default it stands for."""
    written, empty = configuration.load([ROOT / "config.yaml"]), configuration.Config()
    assert list(written.sweep.sweeps) == ["digits_mlp"]  # an example; without a config there is no sweep
    assert written.model_copy(update={"sweep": empty.sweep}) == empty


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_are_valid_and_state_command_runtime_and_score(preset):
    config = configuration.load([ROOT / "config.yaml", preset])
    assert config.results != "results"
    head = preset.read_text().partition("\nresults:")[0]
    assert f"--configfile presets/{preset.name}" in head
    assert "Runtime:" in head
    assert "Score:" in head


def test_source_grid_is_eighteen_trials_of_ten_runs():
    """The nine representations of the source, all layers against visual only."""
    config = configuration.load([ROOT / "config.yaml", ROOT / "presets" / "lora-ws-50k.yaml"])
    trials = [target for target in config.plan() if target.study == "ablation" and target.is_trial]
    source = [
        target.name for target in trials if target.name.startswith("factor/") and not target.name.endswith("/flat")
    ]
    assert len(source) == 18
    assert all(target.settings["runs"] == 10 for target in trials)


def test_presets_are_laid_over_the_config_key_by_key():
    below = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
    assert configuration.deep_merge(below, {"a": {"b": 3}, "d": [4]}) == {"a": {"b": 3, "c": 2}, "d": [4]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ablatoin": {}}, "ablatoin: no such key; did you mean ablation? (8 other keys are known here)"),
        ({"ablation": {"training": {"hiden": 3}}}, "ablation.training.hiden: no such key; did you mean hidden?"),
        ({"ablation": {"training": {"dropout": 1.5}}}, "ablation.training.dropout: Input should be less than 1"),
        ({"ablation": {"layers": ["visual"]}}, "no layer set 'visual'; choose from all_layers, visual_only, text_only"),
        ({"ablation": {"source": "disc"}}, "no source 'disc'; choose from zoo, hub, disk, adapters"),
        ({"ablation": {"source": "adapters"}}, "adapters.path: missing"),
        ({"ablation": {"representations": {"factor": ["spectrum"]}}}, "no representation 'spectrum'; choose from"),
        ({"ablation": {"representations": {"factor": ["nowhere.at_all:f"]}}}, "module nowhere.at_all: not found"),
        ({"ablation": {"representations": {"factor": ["probes"]}}}, "'probes' supports only the product view"),
        (
            {"ablation": {"representations": {"factor": []}}},
            "representations.factor: List should have at least 1",
        ),
        ({"ablation": {"ensembles": {"flat": ["stats"]}}}, "ensembles.flat: a representation has this name"),
        ({"ablation": {"zoo": {"shards": 11}}}, "shards (11) exceeds the 8 chunks of adapters"),
        ({"ablation": {"zoo": {"adapter": {"folds": 4}}}}, "zoo.adapter.folds: 4 folds are too few"),
        ({"ablation": {"zoo": {"adapter": {"folds": 20}}}}, "image_count_max: 16 images take 8 of the adapter's class"),
        ({"results": ""}, "results: String should have at least 1 character"),
        ({"results": "out/{date}"}, "results: String should match pattern"),
        ({"ablation": {"zoo": {"model": {"heads": 5}}}}, "heads (5) must divide width (24)"),
    ],
)
def test_mistakes_in_the_config_are_named(monkeypatch, settings, message):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as error:
        [target.code for target in configuration.check(configuration.deep_merge(DEFAULT, settings)).plan()]
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2", "is not valid YAML"), ("- 1", "must be a mapping of settings")],
)
def test_unreadable_config_is_named(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"x\.yaml: {message}"):
        configuration.load([tmp_path / "x.yaml"])


@pytest.mark.parametrize(
    ("text", "line", "first"),
    [
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, 2),
        ("a: {b: 1, b: 1}", 1, 1),
        ("a:\n- b: 1\n- b: 1\n  'b': 2\n", 4, 3),
    ],
)
def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path, text, line, first):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"x\.yaml:{line}: 'b' stands here again, after line {first}; keep one"):
        configuration.load([tmp_path / "x.yaml"])


def test_keys_that_a_merge_repeats_are_no_mistake(tmp_path):
    (tmp_path / "x.yaml").write_text("x: &x {b: 1}\ny: &y {b: 2}\nz: {<<: *x, b: 3}\nv: [{<<: *x}, {<<: *y}]\n")
    configuration.check_keys(tmp_path / "x.yaml")


def test_conda_environment_has_the_pins_of_the_lock():
    lock = {line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()}
    pip = yaml.safe_load((ROOT / "envs" / "plumbline.yaml").read_text())["dependencies"][-1]["pip"]
    assert set(pip) == lock, "run `make envs`"
    assert all("==" in line for line in lock)
