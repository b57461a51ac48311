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
