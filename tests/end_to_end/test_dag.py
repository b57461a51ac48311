"""The jobs that Snakemake plans are the plan's targets: same files, same edges, same logs."""

import re
from pathlib import Path

import pytest

from house import House, build
from plumbline import config as configuration

EVERYTHING = {
    "ablation": {"shards": 3, "trials_per_job": 1},
    "disaggregation": {"blocks_per_job": 1},
    "lr_sweep": {"extend": False},
    "throughput": {"timing": {"max_batch": True, "skip_larger_after_oom": True}},
}
OWN_TARGETS = {"all", "report", *configuration.STUDIES}
RESULTS = Path("results")


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    return build(tmp_path_factory.mktemp("dag") / "house", "all")


def planned_jobs(house: House, *targets: str) -> list[tuple[str, dict[str, set[str]]]]:
    """Rule, and the paths that it lists under each directive, of every job of a dry run, of these `targets` too."""
    text = house.snakemake(*targets, "--dry-run", "--printshellcmds")
    _, *parts = re.split(r"^(?:local)?(?:rule|checkpoint) (\w+):$", text, flags=re.MULTILINE)
    jobs = []
    for rule, text in zip(parts[::2], parts[1::2], strict=True):
        lines = re.findall(r"^    (input|output|log): (.*)$", text, flags=re.MULTILINE)
        jobs.append((rule, {directive: set(paths.split(", ")) for directive, paths in lines}))
    return jobs


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["default", "everything"])
def test_snakemake_builds_the_dag_of_the_plan(house, settings):
    house.configure(settings)
    config = configuration.load([house.root / "config.yaml", house.root / "tiny.yaml"])
    targets = {str(target.file(RESULTS)): target for target in config.plan()}
    jobs = [(rule, found) for rule, found in planned_jobs(house) if rule not in OWN_TARGETS]
    for rule, found in jobs:
        made = [targets[path] for path in found["output"] if path in targets]
        ((study, stage),) = {(target.study, target.stage) for target in made}
        batch = re.fullmatch(rf"{study}_{stage}_(\d+)", rule)
        assert rule.removesuffix("_shard") == f"{study}_{stage}" or batch
        assert found["output"] == {str(path) for target in made for path in target.files(RESULTS)}
        log = f"logs/{stage}/batch-{batch[1]}.log" if batch else made[0].log
        assert len(made) == 1 or batch
        assert found["log"] == {str(RESULTS / study / log)}
        if not any(need.optional for target in made for need in target.needs):  # else the rounds of the sweep decide
            inputs = {path for target in made for paths in target.inputs(RESULTS).values() for path in paths}
            unread = {"<TBD>"} if made[0].contents else set()  # here nothing has run, so no content is there
            assert found.get("input", set()) == inputs | unread
    made = {path for _, found in jobs for path in found["output"] if path in targets}
    assert made == {path for path, target in targets.items() if not target.optional}


def test_every_study_has_a_target_that_all_includes(house):
    house.configure({})
    jobs = dict(planned_jobs(house, *configuration.STUDIES))
    for study in configuration.STUDIES:
        assert jobs[study]["input"]
        assert jobs[study]["input"] <= jobs["all"]["input"]
