import json
import re

import pytest

from plumbline.core.errors import UserError
from plumbline.throughput.plan import plan
from plumbline.throughput.settings import ThroughputSettings


def specs(*, seed=0, device="cpu", **changes):
    values = {"model": {"source": "config"}, "variants": {"ratios": [1.0, 0.4], "methods": ["plain"]}}
    values |= {"grid": [{"batch": [1, 8]}], **changes}
    targets = plan(ThroughputSettings.model_validate(values), seed, {}, device)
    return {target.path: target.spec for target in targets}


def test_adding_a_cell_leaves_the_other_trials_current():
    before = specs()
    after = specs(grid=[{"batch": [1, 8]}, {"batch": [4, 2], "generated": [5, 32]}])
    assert {path for path, spec in before.items() if after[path] != spec} == {"summarize", "figures"}
    assert len(after) > len(before)


def test_another_device_is_measured_again():
    before, after = specs(), specs(device="cuda")
    stale = {path.partition("/")[0] for path in before if after[path] != before[path]}
    assert stale == {"limits", "measure", "comparison", "summarize", "figures"}


def test_reference_covers_the_grid():
    grid = [{"batch": [1, 8], "generated": [32]}, {"batch": [2], "prompt": [4, 9], "generated": [64]}]
    assert json.loads(specs(grid=grid)["reference/base"])["shapes"] == [[8, 4, 64], [2, 9, 64]]


ENGINES = [{"batch": [1, 8]}, {"batch": [1], "variants": ["base"], "engines": ["generate", "ctranslate2", "llama_cpp"]}]


def test_a_variant_is_converted_once_for_each_engine_that_needs_it():
    converted = {path for path in specs(grid=ENGINES) if path.startswith("convert/")}
    assert converted == {"convert/base/ctranslate2", "convert/base/llama_cpp"}
    larger = [{"batch": [1, 8], "engines": ["llama_cpp"]}, {"batch": [2], "engines": ["llama_cpp"]}]
    assert {path for path in specs(grid=larger) if path.startswith("convert/")} == {
        "convert/base/llama_cpp",
        "convert/plain-0.4/llama_cpp",
    }


def test_installing_an_engines_package_makes_its_trials_stale_and_no_others(monkeypatch):
    before = specs(grid=ENGINES)
    monkeypatch.setattr("plumbline.throughput.plan.missing_packages", lambda engine: ["x"] * (engine == "llama_cpp"))
    after = specs(grid=ENGINES)
    stale = {path for path in before if after[path] != before[path]}
    mine = {"convert/base/llama_cpp", "measure/base/llama_cpp/b1-p4-g32", "comparison/engines/base/b1-p4-g32"}
    assert stale == mine | {"summarize", "figures"}


@pytest.mark.parametrize("engine", ["lean", "ctranslate2", "llama_cpp"])
@pytest.mark.parametrize("source", ["path", "hub", "cached", "user variant"])
def test_engine_that_cannot_run_a_known_model_is_refused_before_anything_runs(tmp_path, monkeypatch, engine, source):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = tmp_path / "cache" / "models--some-lab--small"
    folder = snapshot / "snapshots" / "0123" if source == "cached" else tmp_path / "other"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "gpt2", "max_position_embeddings": 64}')
    if source == "cached":
        (snapshot / "refs").mkdir()
        (snapshot / "refs" / "main").write_text("0123")
    own = {"text": {"calibration": [__file__], "evaluation": [__file__]}}
    changes = {
        "path": {"model": {"source": "path", "path": str(folder)}} | own,
        "hub": {"model": {"source": "hub", "hub": {"id": str(folder)}}} | own,
        "cached": {"model": {"source": "hub", "hub": {"id": "some-lab/small"}}} | own,
        "user variant": {"variants": {"ratios": [1.0], "paths": [str(folder)]}},
    }[source]
    message = rf"grid\.1\.engines: {engine} only supports model_type llama, not gpt2, .* use engines: \[generate\]"
    generate = {"batch": [1], "engines": ["generate"]}
    with pytest.raises(UserError, match=message):
        specs(grid=[generate, {"batch": [2], "engines": ["generate", engine]}], **changes)
    assert specs(grid=[generate], **changes)


def test_id_that_is_none_is_refused_before_anything_runs():
    text = {"calibration": [__file__], "evaluation": [__file__]}
    with pytest.raises(UserError, match=r"model\.hub\.id: no//id is neither a directory here nor an id"):
        specs(model={"source": "hub", "hub": {"id": "no//id"}}, text=text)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"autotune": {"dtype": "bfloat16"}}])
def test_what_decides_the_reference_decides_its_trials(changes):
    before, after = specs(), specs(**changes)
    assert all(after[path] != before[path] for path in before if path.startswith(("reference/", "measure/")))


@pytest.mark.parametrize(("ratios", "tried"), [([0.4, 0.2], "none-0.4, none-0.2"), ([1.0], "no ratio below 1")])
def test_template_that_matches_nothing_is_a_mistake(ratios, tried):
    with pytest.raises(UserError, match=re.escape(f"template: none-{{ratio}} matches nothing (tried: {tried}")):
        specs(variants={"template": "none-{ratio}", "ratios": ratios})


def test_lengths_beyond_a_folders_context_are_refused_before_anything_runs(tmp_path):
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "config.json").write_text('{"max_position_embeddings": 8}')
    own = {"ratios": [1.0], "paths": [str(tmp_path / "short")]}
    with pytest.raises(
        UserError, match=r"grid.0: prompt \+ generated is 36 tokens, more than the context of 8 tokens of .*short"
    ):
        specs(variants=own)
    hub = {"source": "hub", "hub": {"id": str(tmp_path / "short")}}
    with pytest.raises(UserError, match="more than the context of 8 tokens"):
        specs(model=hub, text={"calibration": [__file__], "evaluation": [__file__]})
    for_others = [{"batch": [1], "variants": ["base"]}, {"batch": [1], "generated": [4]}]
    assert "user_variant/short" in specs(variants=own, grid=for_others)


OWN_TEXT = {"text": {"calibration": [__file__], "evaluation": [__file__]}}


@pytest.mark.parametrize(
    ("config", "engine"),
    [
        ({"model_type": "llama"}, "lean"),
        ({"model_type": "qwen2"}, "generate"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "generate"),
        ({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}}, "generate"),
        (
            {"model_type": "llama", "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "generate",
        ),
    ],
)
def test_the_default_engine_is_the_fastest_that_can_run_all_variants(tmp_path, config, engine):
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = {"model": {"source": "path", "path": str(tmp_path)}} | OWN_TEXT
    assert {path.split("/")[2] for path in specs(**model) if path.startswith("measure/")} == {engine}
    variant = {"variants": {"ratios": [1.0], "paths": [str(tmp_path)]}}
    assert {path.split("/")[2] for path in specs(**variant) if path.startswith("measure/")} == {engine}
    assert {path.split("/")[2] for path in specs() if path.startswith("measure/")} == {"lean"}


def test_the_default_engine_of_a_hub_model_follows_its_config(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = {"model": {"source": "hub", "hub": {"id": "some-lab/small"}}} | OWN_TEXT
    with pytest.raises(UserError, match="some-lab/small is not a directory here, and the hub did not provide it"):
        specs(**model)
    snapshot = tmp_path / "cache" / "models--some-lab--small"
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs" / "main").write_text("0123")
    (snapshot / "snapshots" / "0123").mkdir(parents=True)
    (snapshot / "snapshots" / "0123" / "config.json").write_text('{"model_type": "mistral"}')
    assert {path.split("/")[2] for path in specs(**model) if path.startswith("measure/")} == {"generate"}


def test_a_variant_with_an_unreadable_config_does_not_stop_the_plan(tmp_path):
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model_0.5.pt").write_bytes(b"")
    paths = {"variants": {"ratios": [1.0], "paths": [str(tmp_path), str(tmp_path / "model_0.5.pt")]}}
    assert "user_variant/model_0.5.pt" in specs(**paths)


def test_a_folder_in_place_of_files_is_told_how_to_name_them(tmp_path):
    text = {"calibration": [str(tmp_path)], "evaluation": [__file__]}
    model = {"source": "path", "path": str(tmp_path)}
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match=rf"text.calibration\[0\]: {tmp_path} is a folder; name the files in it"):
        specs(model=model, text=text)
