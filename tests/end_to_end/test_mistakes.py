"""A user's mistake is one clear line, before any job starts, and nothing is lost."""

import pytest


def refuse(house, *arguments):
    """What Snakemake prints of a config that it refuses."""
    text = house.snakemake(*arguments, succeeds=False)
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ablatoin": {}}, "ablatoin: no such key (known here: results, seed, device, ablation)"),
        ({"ablation": {"training": {"hiden": 3}}}, "ablation.training.hiden: no such key"),
        ({"ablation": {"training": {"dropout": 1.5}}}, "ablation.training.dropout: Input should be less than 1"),
        ({"ablation": {"layers": ["visual"]}}, "no layer set 'visual'; there are all_layers, visual_only, text_only"),
        ({"ablation": {"source": "disc"}}, "no source 'disc'; there are zoo, hub, disk, adapters"),
        ({"ablation": {"source": "adapters"}}, "adapters.path: missing"),
        ({"ablation": {"representations": {"factor": ["spectrum"]}}}, "no representation 'spectrum'; there are"),
        ({"ablation": {"representations": {"factor": ["nowhere.at_all:f"]}}}, "module nowhere.at_all: not found"),
        ({"ablation": {"zoo": {"model": {"heads": 5}}}}, "heads (5) must divide width (24)"),
    ],
)
def test_mistakes_in_the_config_are_named_before_any_job_starts(empty_house, settings, message):
    empty_house.configure(settings)
    assert message in refuse(empty_house, "--dry-run")
    assert not empty_house.study.exists()


def test_results_folder_that_cannot_be_made_is_named(empty_house):
    (empty_house.root / "file").write_text("")
    text = refuse(empty_house, "--config", "results=file/results")
    assert "file/results cannot be made" in text


def test_missing_configfile_is_named_by_status(empty_house):
    (empty_house.root / "config.yaml").unlink()
    with pytest.raises(AssertionError, match=r"plumbline: config.yaml: does not exist"):
        empty_house.plumbline("status")
