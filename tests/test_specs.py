"""What a stage records as its spec is the plan's spec, or every target would look stale."""

import importlib
import json
import typing
from pathlib import Path

import pytest

from plumbline import config as configuration
from plumbline.core.plan.target import Target, canonical
from plumbline.core.run.plain_spec import PlainSpec
from plumbline.core.run.stage import Stage
from plumbline.core.settings import Settings

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


def spec_class(target: Target) -> type[Settings] | type[PlainSpec]:
    module = importlib.import_module(f"plumbline.{target.study}.{target.stage}")
    (stage,) = (value for value in vars(module).values() if isinstance(value, Stage))
    return typing.get_type_hints(stage.function)["spec"]


@pytest.mark.parametrize("preset", [None, *PRESETS], ids=lambda path: path.stem if path else "default")
def test_every_spec_comes_back_from_its_stage_as_the_plan_has_it(preset, monkeypatch):
    monkeypatch.chdir(ROOT)
    paths = [ROOT / "config.yaml", *([preset] if preset else [])]
    config = configuration.load(paths)
    changed = {}
    for target in config.plan():
        dumped = spec_class(target).from_json(json.loads(target.spec), "--spec").to_json()
        if canonical(dumped) != target.spec:
            changed[target.path] = dumped
    assert changed == {}
